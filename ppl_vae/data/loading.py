"""Data from whatever a user gives: a name or a path (`load`), arrays, a loader."""

import dataclasses
import os
from dataclasses import replace
from pathlib import Path

from ppl_vae import checks
from ppl_vae.data.arrays import of, of_table, say_notes
from ppl_vae.data.dataset import Data
from ppl_vae.data.delimited import Layout
from ppl_vae.data.files import read
from ppl_vae.data.loader import Loader, is_batches
from ppl_vae.data.locate import locate
from ppl_vae.data.registry import SOURCES, named
from ppl_vae.data.roles import NO_CLASSES, Roles
from ppl_vae.errors import UsageError


def load(
    name_or_path,
    *,
    binarize="auto",
    offline=False,
    valid=None,
    test=None,
    split_seed=0,
    kind=None,
    levels=None,
    x=None,
    label=None,
    batch=None,
    index=None,
    ignore=None,
    mask=None,
    delimiter=None,
    decimal=None,
    header=None,
    like=None,
    quiet=False,
    **unknown,
) -> Data:
    """Load a data set by name, or the user's own by path.

    Parameters
    ----------
    name_or_path : str or path
        One of the names in `catalogue()`, or a path: `.npz` of named fields (with splits if the names end in
        `_train`, `_valid`, `_test`), `.npy`, a table (`.csv`, `.tsv`, `.txt`), or a folder of images.
    binarize : str
        "auto", "none", "dynamic" or "static"; see `Data`.
    offline : bool
        Never download.
    valid, test, split_seed : int or float, optional
        Rows to hold out where the data leaves it open, as a number or a fraction (0 for none), and the seed.
    kind, levels, x, label, batch, index, ignore, mask, like : optional
        For a path, see `of`.
    delimiter, decimal, header : optional
        How a table that is text is to be read, see `Layout`; by default as it looks.
    quiet : bool
        Log nothing of what was taken for what (`Data.notes` has it too).

    Raises
    ------
    UsageError
        An unknown name or an impossible option.
    DataError
        Missing or damaged content.
    """
    checks.options("data.load", unknown, load.__kwdefaults__)
    if not isinstance(name_or_path, (str, os.PathLike)):
        given = type(name_or_path).__name__
        raise UsageError(f"load takes a name or a path, not {given}: use data.of for arrays")
    chosen = {"binarize": binarize, "valid": valid, "test": test, "split_seed": split_seed}
    own = {"kind": kind, "levels": levels, "x": x, "label": label, "batch": batch, "index": index}
    own |= {"ignore": ignore, "mask": mask, "delimiter": delimiter, "decimal": decimal, "header": header}
    own = {name: value for name, value in own.items() if value is not None}
    by_name = isinstance(name_or_path, str) and name_or_path in SOURCES
    if by_name and own:
        raise UsageError(f"what {name_or_path} holds is known: leave out {', '.join(own)}")
    if by_name:
        loaded = _load_named(SOURCES[name_or_path], offline, **chosen)
    else:
        chosen |= own
        loaded = _load_path(str(name_or_path), chosen, like)
    if like is None and not quiet:
        say_notes(loaded)
    where = name_or_path if by_name else str(Path(name_or_path).expanduser().resolve())
    return replace(loaded, options={"name_or_path": where} | chosen)


def _load_path(given: str, options: dict, like) -> Data:
    path = Path(given).expanduser()
    looks_like_path = path.suffix or path.name != given
    if not given or (not path.exists() and not looks_like_path):
        named(given)
    layout = Layout(**{part.name: options.get(part.name) for part in dataclasses.fields(Layout)})
    roles = Roles(**{part.name: options.get(part.name) for part in dataclasses.fields(Roles)})
    if like is not None:
        roles = like.roles_beside(roles=roles)
    table = read(path, roles, layout, NO_CLASSES if like is None else like.classes)
    parts = ("binarize", "valid", "test", "split_seed", "kind", "levels")
    made = of_table(table, given, roles, like, **{part: options.get(part) for part in parts})
    return replace(made, source=str(path.resolve()))


def _load_named(source, offline, *, binarize, valid, test, split_seed) -> Data:
    folder = locate(source, offline)
    splits, rule = source.split(source.read(folder, source), valid, test, split_seed)
    place = "scikit-learn" if folder is None else str(folder.path)
    terms, coords = source.licence, dict(source.coords)
    return Data(source.name, splits, source.kind, source.levels, binarize, rule, place, terms, coords)


def in_memory(given) -> Data:
    """Return rows in memory: Data itself, arrays, a table, a name or a path."""
    return load(given) if isinstance(given, (str, os.PathLike)) else of(given)


def opened(given, fields=None, kind=None) -> Data | Loader:
    """Return what to train on: a loader as a Loader of a program's fields, anything else in memory."""
    return Loader(given, fields, kind) if is_batches(given) else in_memory(given)
