"""`load`: one door for named data sets and the user's files."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

from ppl_vae.data.locate import locate
from ppl_vae.data.dataset import Data
from ppl_vae.data.sources import SOURCES, Source
from ppl_vae.errors import DataError, UsageError


def named(name: str) -> Source:
    """The source of a named data set; `UsageError` with the known names if there is none."""
    if name not in SOURCES:
        close = difflib.get_close_matches(str(name).lower().replace("_", "-"), SOURCES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(
            f"unknown data {str(name)!r}{hint}: no data set has this name and no such path exists; "
            f"names are {', '.join(SOURCES)}"
        )
    return SOURCES[name]


def load_named(name, *, binarize="none", offline=False, valid=None, test=None, split_seed=0) -> Data:
    """Load a named data set; see `load`."""
    source = named(name)
    folder = locate(source, offline)
    splits, rule = source.split(source.read(folder, source), valid, test, split_seed)
    place = "scikit-learn" if folder is None else str(folder.path)
    return Data(
        source.name, splits, source.kind, source.levels, binarize, rule, place, source.licence, dict(source.coords)
    )


def load(name_or_path, *, binarize="none", offline=False, valid=None, test=None, split_seed=0) -> Data:
    return load_named(
        name_or_path, binarize=binarize, offline=offline, valid=valid, test=test, split_seed=split_seed
    )
