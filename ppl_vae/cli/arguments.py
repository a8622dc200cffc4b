"""Groups of options that scripts share."""

import sys
from argparse import SUPPRESS
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from ppl_vae import annotations
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
    parser.add_argument(
        "--json",
        action="store_true",
        default=SUPPRESS,
        help="the result as one line of JSON on a terminal too",
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


def _add(group: Any, options: Iterable[tuple[str, Any, Any, str]]) -> None:
    """Add options by name, type, default and help."""
    for name, kind, default, words in options:
        group.add_argument(name, type=kind, default=default, help=words)


def _flag(group: Any, name: str, words: str) -> None:
    group.add_argument(name, action="store_true", help=words)


def data(parser: ArgumentParser, default: str | None = "digits") -> None:
    """Add what tells the data: name or path, binarization, held-out rows."""
    group = parser.add_argument_group("data")
    path = "name (ppl-vae data list) or path: .npz, .npy, .csv, a folder of images"
    bits = "dynamic, static, none, or auto: dynamic for a Bernoulli likelihood on grey levels"
    held, own = "rows to hold out for {}: a number, or a fraction", "of your own"
    kinds = f"{own} data: image, vector, counts or sound; else inferred from the array"
    _add(
        group,
        [
            ("--data", str | None, default, path),
            ("--binarize", str, "auto", bits),
            ("--valid", int | float | None, None, held.format("validation")),
            ("--test", int | float | None, None, held.format("testing")),
            ("--split-seed", int, 0, "of the rows held out at random"),
            ("--kind", str | None, None, kinds),
            ("--levels", int | None, None, f"{own} quantised data: the number of levels"),
        ],
    )
    offline(group)
    table(parser)


def table(parser: ArgumentParser) -> None:
    """Add what tells the columns of a table (or the arrays of an .npz), and how its text is written."""
    _add(
        parser.add_argument_group("columns of your own table, or arrays of your .npz"),
        [
            (
                "--x",
                str | None,
                None,
                "what becomes x, separated by commas; else every number without another role",
            ),
            ("--label", str | None, None, "classes: the field y; text becomes codes"),
            ("--batch", str | None, None, "groups: the field batch; text becomes codes"),
            ("--index", str | None, None, "names of rows; none: nothing is taken for them"),
            ("--ignore", str | None, None, "what is left out, separated by commas"),
            (
                "--mask",
                str | None,
                None,
                "nan: what is missing is masked (the field mask); or a column of 0 and 1",
            ),
            ("--delimiter", str | None, None, "between cells: comma, semicolon, tab, bar or space"),
            ("--decimal", str | None, None, "before fractions: . or ,"),
            ("--header", bool | None, None, "whether the first line names the columns"),
        ],
    )


def offline(parser: Any) -> None:
    """Add --offline."""
    _flag(parser, "--offline", "never download")


def training(parser: ArgumentParser) -> None:
    """Add every field of `ppl_vae.options.Training`."""
    group, kinds, texts = (
        parser.add_argument_group("training"),
        get_type_hints(Training),
        annotations.attributes(Training.__doc__),
    )
    for field in fields(Training):
        kind = float | str if field.name == "lr" else kinds[field.name]
        option = "--" + field.name.replace("_", "-")
        group.add_argument(option, type=kind, default=field.default, help=texts.get(field.name, ""))


def objective(parser: ArgumentParser) -> None:
    """Add the objective, the backend and how its step is computed."""
    chosen = "elbo, elbo(beta=4,warm_up=1000), iwae(k=50), or a stock one such as Trace_ELBO"
    beta = "weight of the KL: a number or a schedule such as linear:0:1:1000"
    compile = (
        "make one compiled graph of Pyro's step: on, off, or auto, if the run is long enough to earn it "
        "(NumPyro always compiles)"
    )
    _add(
        parser.add_argument_group("objective and backend"),
        [
            ("--objective", str, "elbo", chosen),
            ("--beta", float | str | None, None, beta),
            ("--warm-up", int | None, None, "steps over which the weight of the KL rises from 0"),
            ("--backend", str | None, None, "pyro or numpyro; by default the program's first"),
            ("--compile", str, "auto", compile),
        ],
    )


def run_folder(parser: ArgumentParser) -> None:
    """Add where a training writes, and how it goes on."""
    group = parser.add_argument_group("run folder")
    where = "the run folder (by default runs/PROGRAM-DATA, numbered where that exists)"
    _add(group, [("--out", str | None, None, where)])
    goes_on = "go on with the run in --out, which needs nothing else; --epochs or --max-steps may change"
    _flag(group, "--resume", goes_on)
    model = "for --resume: the model file, where the recorded one is gone or has changed"
    _add(group, [("--model-file", str | None, None, model)])
    _flag(group, "--tensorboard", "also write TensorBoard logs")
    _add(
        group, [("--progress", bool | None, None, "true or false: a progress bar; by default on a terminal")]
    )


def run(parser: ArgumentParser) -> None:
    """Add the positional RUN and how to open it."""
    parser.add_argument("run", nargs="?", type=str, default=SUPPRESS, help="the run's folder")
    model = "the model file to execute, where the recorded one is gone or has changed"
    _add(
        parser,
        [
            ("--model-file", str | None, None, model),
            ("--device", str, "cpu", "cpu, cuda, cuda:1 ..."),
            ("--seed", int, 0, "of all draws"),
        ],
    )


def rows(parser: ArgumentParser, number: int | None = None) -> None:
    """Add which rows to work on."""
    _add(
        parser,
        [
            ("--split", str, "test", "train, valid or test; all: the rows of all three, in this order"),
            ("--rows", int | None, number, "take only the first rows of the split"),
        ],
    )
    place(parser)


def place(parser: ArgumentParser) -> None:
    """Add where the data lies."""
    other = (
        "other data, taken whole where it has no splits of its own; or where the run's data now lies, which "
        "keeps its splits"
    )
    _add(parser, [("--data", str | None, None, other)])
    offline(parser)


def draw(parser: ArgumentParser) -> None:
    """Add --draw."""
    _flag(parser, "--draw", "draw latents from the guide instead of taking their means")


def covariates(parser: ArgumentParser) -> None:
    """Add the fields that a program takes beside what it observes."""
    fields = (
        "a file of the fields that are no observations, one row for all or a row each; or NAME=VALUE,... for "
        "all, values with commas in a file (by default those of the training rows, in turn)"
    )
    _add(parser, [("--covariates", str | None, None, fields)])
    place(parser)


def out(parser: ArgumentParser, default: str) -> None:
    """Add where the result goes."""
    _add(parser, [("--out", str | None, None, f"the file to write (by default {default})")])
    _flag(parser, "--overwrite", "replace the file of --out")
