"""From words to options, in two phases: the program, once it is known, brings the options `--model.FIELD`."""

import re
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from ppl_vae import annotations, gallery, model_files
from ppl_vae.cli.running import hint
from ppl_vae.errors import PplVaeError, RunError, UsageError
from ppl_vae.store import read_config

_TUPLES = {"--betas": tuple[float, float]}
_SHOW = ("--print_config", "-h", "--help")


def parse(make: Callable[[], ArgumentParser], words: Sequence[str]) -> Namespace:
    """Return the options that a command line and its `--config` files give; the line goes before the files.

    Parameters
    ----------
    make : callable
        Returns the parser. One with a positional `program` gets an option for each field of that program.
    words : sequence of str

    Returns
    -------
    Namespace
        With `given`, the names that were not left at their default.

    Raises
    ------
    UsageError
        For an unknown option or key, and for a value of the wrong kind.
    """
    _refuse_repeated(words)
    words = _bracketed(_configs_first(words), _TUPLES)
    parser = make()
    if not _has(parser, "program"):
        return _parsed(parser, words)
    parser.add_argument(
        "--model", type=dict[str, Any], default={}, help="the program's fields: --model.FIELD VALUE"
    )
    asked = [word for word in words if word not in _SHOW]
    try:
        name = _parsed(parser, asked).get("program")
    except UsageError:
        if len(asked) < len(words):  # help for a line that is not complete
            _parsed(parser, words)
        raise
    if name is None:
        return _parsed(parser, words)
    parser = make()
    kinds = _add_fields(parser, name)
    return _parsed(parser, _bracketed(words, kinds))


def named(make: Callable[[], ArgumentParser]) -> set[str]:
    """Return the names of a command's options."""
    return {action.dest for action in make()._actions if action.option_strings}


def _refuse_repeated(words: Sequence[str]) -> None:
    """Refuse a role of columns, or covariates, given twice: the last would win, and the first be lost."""
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    if len(given) == len(set(given)):
        return
    from ppl_vae.data.roles import ROLES  # with NumPy, which no help text waits for

    for name in (*ROLES, "covariates"):
        if given.count(f"--{name}") > 1:
            raise UsageError(f"--{name} is given twice: once is enough, with commas between names")


def _has(parser: ArgumentParser, name: str) -> bool:
    return any(action.dest == name for action in parser._actions)


def _configs_first(words: Sequence[str]) -> list[str]:
    """Move `--config FILE` to the front, so that options win over files wherever they stand; find recipes."""
    first, rest, left = [], [], iter(words)
    for word in left:
        if word == "--config" or word.startswith("--config="):
            named = word.partition("=")[2] if "=" in word else next(left, None)
            if not named:
                raise UsageError("--config needs a file or the name of a recipe")
            first += ["--config", str(_config(named))]
        else:
            rest.append(word)
    return first + rest


def _config(named: str) -> Path:
    path = Path(named).expanduser()
    if not path.is_file() and path.suffix not in (".yaml", ".yml", ".json"):
        path = gallery.find(named, "recipe")
    if not path.is_file():
        raise UsageError(f"there is no config file {named}")
    try:
        read_config(path.read_bytes())
    except (OSError, UnicodeDecodeError, RunError) as error:
        raise UsageError(f"{named}: {error}") from None
    return path


def _add_fields(parser: ArgumentParser, name: str) -> dict[str, Any]:
    """Add the program's fields as options; returns their types by option."""
    source = gallery.source(name)
    program = model_files.declared(source)
    if not program.declared:
        parser.add_argument("--model", type=dict[str, Any], default={}, help=SUPPRESS)
        return {}
    kind = program if isinstance(program, type) else type(program)
    kinds, texts = annotations.types(kind), annotations.described(kind, source.text)
    group = parser.add_argument_group(f"fields of {kind.__name__}")
    for field in fields(kind):
        if field.init:
            default = getattr(program, field.name, None) if program is not kind else _default(field)
            words = _choices(field, texts.get(field.name, ""))
            group.add_argument(f"--model.{field.name}", type=kinds[field.name], default=default, help=words)
    return {f"--model.{name}": kinds[name] for name in kinds}


def _choices(field: Any, text: str) -> str:
    """Return a field's help, with the names to choose from where it names a likelihood."""
    if field.name != "likelihood" or field.type not in (str, "str"):
        return text
    from ppl_vae.likelihoods import KNOWN

    return f"{text}{': ' if text else ''}{', '.join(KNOWN)}"


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _bracketed(words: Sequence[str], kinds: dict[str, Any]) -> list[str]:
    """Write 400,400 as [400,400] where the option is a tuple."""
    done, option = [], ""
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in kinds:
            word = f"{name}={_bracket(value, kinds[name])}"
        elif option in kinds:
            word = _bracket(word, kinds[option])
        done.append(word)
        option = word
    return done


def _bracket(value: str, kind: Any) -> str:
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    listed = any(one in (tuple, list) or get_origin(one) in (tuple, list) for one in kinds)
    single = any(one in (int, float, str) for one in kinds) and "," not in value
    return (
        f"[{value}]" if listed and not single and re.match(r"[\w.+-]", value) and value != "null" else value
    )


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    try:
        options = parser.parse_args(list(words))
        given = parser.parse_args(list(words), defaults=False)
    except (ArgumentError, yaml.YAMLError, TypeError, ValueError) as error:
        raise UsageError(_readable(str(error), parser, words)) from None
    options["given"] = tuple(name for name in vars(given) if name != "config")
    if isinstance(options.get("model"), Namespace):
        options["model"] = dict(vars(options.model))
    return options


def _elsewhere(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return options as they are written within a group: fields of the line's program (else of those of the
    gallery) and of the objectives.
    """
    if not _has(parser, "program"):
        return []
    from ppl_vae.objectives import OBJECTIVES

    known = [entry.name for entry in gallery.names()]
    named = [word for word in words if word in known or word.endswith(".py")]
    names = []
    for name in named[:1] or known:
        with suppress(PplVaeError):
            program = model_files.declared(gallery.source(name))
            names += [f"--model.{field.name}" for field in (fields(program) if program.declared else ())]
    options = [(name, field.name) for name, kind in OBJECTIVES.items() for field in fields(kind)]
    return names + [f"--objective '{name}({option}=...)'" for name, option in options]


def _readable(message: str, parser: ArgumentParser, words: Sequence[str] = ()) -> str:
    """Return the parser's complaint in one line."""
    text = " ".join(message.split())
    options = [option for action in parser._actions for option in action.option_strings]
    if match := re.search(r"unrecognized arguments: (\S+)", text, re.I):
        name = match[1].partition("=")[0]
        what = "unknown option" if name.startswith("-") else "superfluous argument"
        near = hint(name, [*options, *_elsewhere(parser, words)]) if name.startswith("-") else ""
        return f"{what} {name}{near}"
    if match := re.search(r"Option '(\S+)' is not accepted", text):
        key = match[1]
        near = hint(key, [*(action.dest for action in parser._actions), *_elsewhere(parser, words)])
        return f"the config file has the unknown key {key!r}{near.replace('--', '')}"
    if match := re.search(r'Parser key "(\S+)": (.*)', text):
        key, rest = match.groups()
        option = f"--{key}" if key.startswith("model.") else "--" + key.replace("_", "-")
        return f"{option}: {_reason(rest, key)}"
    return text


def _reason(text: str, key: str) -> str:
    value = re.search(r"(?:Given|Got) value:\s*(.*)$", text)
    kinds = re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(
        r"Expected an? (.*?)[.,]? (?:Got|but)", text
    )
    if not (value and kinds):
        return text
    if choices := re.search(r"Literal\[(.*?)\]$", kinds[1]):
        name = key.removeprefix("model.")
        return f"unknown {name} {value[1].rstrip('.')!r}: choose one of {choices[1].replace(chr(39), '')}"
    names = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kinds[1]).replace("NoneType", "null")
    return f"{value[1].rstrip('.') or repr('')} is not of the kind {names}"
