"""A resolved configuration as YAML: values of YAML only, read back as they were written."""

import re
from os import PathLike, fspath

import yaml

from ppl_vae.errors import RunError, UsageError


class _Loader(yaml.SafeLoader):
    """`yaml.safe_load`, but 1e-4 is a number as in YAML 1.2 (PyYAML takes it for text), and aliases are
    refused, a few lines of which stand for more than fits into memory.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1} has the alias *{event.anchor}")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def write_config(config: dict) -> bytes:
    """Serialise a configuration: tuples become lists, paths text, NumPy values Python's.

    Raises
    ------
    UsageError
        A value that YAML cannot hold; the message names its place.
    """
    return yaml.safe_dump(as_yaml(config), sort_keys=False, allow_unicode=True).encode()


def read_config(raw: bytes | str) -> dict:
    """Parse what `write_config` wrote, or a person edited (safe YAML: no objects are made).

    Raises
    ------
    RunError
        Not YAML, or not a mapping.
    """
    try:
        config = yaml.load(raw, Loader=_Loader)
    except RecursionError:
        raise RunError("the configuration is nested too deeply: correct it") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        cause = " ".join(str(error).split())
        raise RunError(f"the configuration is not valid YAML ({cause}): correct it") from None
    if not isinstance(config, dict):
        raise RunError("the configuration is not a mapping of names to values: correct it")
    return config


def as_yaml(value, place: str = "config"):
    """Return a value as a configuration holds it; see `write_config`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {_key(key, place): as_yaml(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_yaml(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [as_yaml(item, place) for item in sorted(value)]
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):
        return as_yaml(value.tolist(), place)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise UsageError(
        f"{place} is a {type(value).__name__}, which a configuration cannot hold: "
        "give numbers, text, lists and mappings only"
    )


def _key(key, place: str):
    if isinstance(key, str | int):
        return key
    raise UsageError(f"{place} has the key {key!r}: name the entries of a configuration by text")
