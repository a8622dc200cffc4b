"""Groups of options that scripts share."""

import re
import sys
from argparse import SUPPRESS
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from ppl_vae.options import Training


def new(doc: str, prog: str | None = None) -> ArgumentParser:
    """Return a parser that is described by a script's docstring, with `--config` and `--print_config`."""
    name = prog or Path(sys.argv[0]).stem
    parser = ArgumentParser(
        prog=f"ppl-vae {name}",
        description=doc,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file of options, or the name of a recipe; options of the command line win",
    )
    return parser


class _Formatter(DefaultHelpFormatter):
    """Keeps the lines of the description as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.strip().splitlines())


def program(parser: ArgumentParser) -> None:
    """Add the positional PROGRAM."""
    # Without a default: an absent positional would overwrite what a config file says.
    parser.add_argument(
        "program", nargs="?", type=str, default=SUPPRESS, help="gallery name, or a file of yours"
    )


def data(parser: ArgumentParser, default: str | None = "digits") -> None:
    """Add what tells the data: name or path, binarization, held-out rows."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        type=str | None,
        default=default,
        help="name (ppl-vae data list) or path: .npz, .npy, .csv, a folder of images",
    )
    group.add_argument(
        "--binarize",
        type=str,
        default="auto",
        help="dynamic, static, none, or auto: dynamic for a Bernoulli likelihood on grey levels",
    )
    group.add_argument(
        "--valid",
        type=int | float | None,
        default=None,
        help="rows to hold out for validation: a number, or a fraction",
    )
    group.add_argument(
        "--test",
        type=int | float | None,
        default=None,
        help="rows to hold out for testing: a number, or a fraction",
    )
    group.add_argument("--split-seed", type=int, default=0, help="of the rows held out at random")
    group.add_argument(
        "--kind",
        type=str | None,
        default=None,
        help="of your own data: image, vector, counts or sound; else found from the array",
    )
    group.add_argument(
        "--levels", type=int | None, default=None, help="of your own quantised data: the number of levels"
    )
    offline(group)


def offline(parser: Any) -> None:
    """Add --offline."""
    parser.add_argument("--offline", action="store_true", help="never download")


def training(parser: ArgumentParser) -> None:
    """Add every field of `ppl_vae.options.Training`."""
    group, kinds, told = (
        parser.add_argument_group("training"),
        get_type_hints(Training),
        _told(Training.__doc__ or ""),
    )
    for field in fields(Training):
        kind = float | str if field.name == "lr" else kinds[field.name]
        option = "--" + field.name.replace("_", "-")
        group.add_argument(option, type=kind, default=field.default, help=told.get(field.name, ""))


def objective(parser: ArgumentParser) -> None:
    """Add the objective, the backend and how its step is computed."""
    group = parser.add_argument_group("objective and backend")
    group.add_argument(
        "--objective",
        type=str,
        default="elbo",
        help="elbo, elbo(beta=4,warm_up=1000), iwae(k=50), or a stock one such as Trace_ELBO",
    )
    group.add_argument(
        "--beta",
        type=float | str | None,
        default=None,
        help="weight of the KL: a number or a schedule such as linear:0:1:1000",
    )
    group.add_argument(
        "--warm-up", type=int | None, default=None, help="steps over which the weight of the KL rises from 0"
    )
    group.add_argument(
        "--backend", type=str | None, default=None, help="pyro or numpyro; by default the program's first"
    )
    group.add_argument(
        "--compile",
        type=str,
        default="auto",
        help="make one compiled graph of Pyro's step: on, off, or auto, if the run is long enough to earn it "
        "(NumPyro always compiles)",
    )


def run_folder(parser: ArgumentParser) -> None:
    """Add where a training writes, and how it goes on."""
    group = parser.add_argument_group("run folder")
    group.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="the run folder (by default runs/PROGRAM-DATA, numbered where that exists)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, which needs nothing else; --epochs or --max-steps may change",
    )
    group.add_argument(
        "--model-file",
        type=str | None,
        default=None,
        help="for --resume: the model file, where the recorded one is gone or has changed",
    )
    group.add_argument("--tensorboard", action="store_true", help="also write TensorBoard logs")
    group.add_argument(
        "--progress",
        type=bool | None,
        default=None,
        help="true or false: a progress bar; by default on a terminal",
    )


def _told(doc: str) -> dict[str, str]:
    """Return a numpydoc list of attributes by name."""
    found = {}
    for names, text in re.findall(r"^    (\w[\w, ]*) : [^\n]*((?:\n        [^\n]+)+)", doc, re.M):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()).rstrip("."))
    return found


def run(parser: ArgumentParser) -> None:
    """Add the positional RUN and how to open it."""
    parser.add_argument("run", nargs="?", type=str, default=SUPPRESS, help="the run's folder")
    parser.add_argument(
        "--model-file",
        type=str | None,
        default=None,
        help="the model file to execute, where the recorded one is gone or has changed",
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")


def rows(parser: ArgumentParser, number: int | None = None) -> None:
    """Add which rows to work on."""
    parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument(
        "--rows", type=int | None, default=number, help="take only the first rows of the split"
    )
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="other data, or where the run's data now lies; a file without splits of its own is taken whole",
    )
    offline(parser)


def draw(parser: ArgumentParser) -> None:
    """Add --draw."""
    parser.add_argument(
        "--draw", action="store_true", help="draw latents from the guide instead of taking their means"
    )


def covariates(parser: ArgumentParser) -> None:
    """Add the fields that a program takes beside what it observes."""
    parser.add_argument(
        "--covariates",
        type=str | None,
        default=None,
        help=".npz of the fields that are no observations (by default those of the training rows, in turn)",
    )


def out(parser: ArgumentParser, default: str) -> None:
    """Add where the result goes."""
    parser.add_argument(
        "--out", type=str | None, default=None, help=f"the file to write (by default {default})"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out")
