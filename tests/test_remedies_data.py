"""Each remedy that a message about data names is carried out."""

import gzip
import io
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from fake_data import fake_mnist, no_real_places  # noqa: F401
from PIL import Image
from remedies import Case
from test_data_download import fake_server, serve  # noqa: F401

from ppl_vae import Program, data
from ppl_vae.data.batches import num_batches
from ppl_vae.data.description import Description
from ppl_vae.data.loader import Loader, rows_by_place
from ppl_vae.data.locate import Folder
from ppl_vae.data.sources import Source, hold_out, split_given

X = np.random.default_rng(0).normal(size=(20, 2)).astype("f")
GAPS = np.where(np.arange(40).reshape(20, 2) % 7 == 0, np.nan, X)
GREY = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4) % 200
KINDS = np.arange(20) % 3
WIDE = np.full((4, 4), 999, np.uint16)


@dataclass(frozen=True)
class Grid(Program):
    x_shape: tuple[int, int] | None = None


def written(name, content):
    """Write a file into the working folder; returns its name."""
    with open(name, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    return name


def saved(name, *arrays, **named):
    """Write arrays into the working folder as the name says; returns it."""
    held = io.BytesIO()
    np.savez(held, *arrays, **named) if named or len(arrays) > 1 else np.save(held, *arrays)
    return written(name, held.getvalue())


def table(text, **roles):
    return data.load(written("table.csv", text), **roles)


def sparse(wrong):
    scipy.sparse.save_npz("sparse.npz", scipy.sparse.csr_matrix(X))
    if wrong:
        with np.load("sparse.npz") as found:
            saved("sparse.npz", **{**found, "format": np.array(b"none")})
    return data.load("sparse.npz")


def pictures(*made, folders=(), remove=()):
    """Write images as files a.png, b.png ... of a folder and load it."""
    shutil.rmtree("images", ignore_errors=True)
    for number, one in enumerate(made):
        path = Path("images", *folders[number : number + 1], f"{'abcdefgh'[number]}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(one, bytes):
            path.write_bytes(one)
        elif isinstance(one, list):
            one[0].save(path, save_all=True, append_images=one[1:])
        else:
            one.save(path.with_suffix(".tif" if one.mode == "I" else ".png"))
    for name in remove:
        Path("images", name).unlink()
    return data.load("images")


def image(mode="L", size=4, level=7):
    return Image.new(mode, (size, size), level)


def png(cut=0):
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(held, "PNG")
    return held.getvalue()[: -cut or None]


def matlab(**held):
    scipy.io.savemat("held.mat", held)
    return data.load("held.mat")


def cells(layered):
    import anndata

    with pd.option_context("mode.string_storage", "python"):
        made = anndata.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(20)]), layers={"counts": X})
        anndata.settings.allow_write_nullable_strings = True
        made.write_h5ad("cells.h5ad")
    return data.load("cells.h5ad", **({"x": "counts"} if layered else {}))


class Batches:
    """Rows in batches, as a loader yields them."""

    def __init__(self, *batches, length=True):
        self.batches, self.length = batches, length

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        if not self.length:
            raise TypeError("no length")
        return len(self.batches)


def loader(*batches, length=True):
    made = Loader(Batches(*batches, length=length), ("x", "y"))
    return made.first, [*made.epoch(0)]


splits = hold_out("mnist", 4, "the training rows", "as given")
OWN = {"train": {"x": X}, "test": {"x": X}}

CASES = {
    "no data": Case(lambda: data.of(3), "is no data: give a name, a path, an array", lambda: data.of(X)),
    "axes of a row": Case(
        lambda: Grid().adapted_to(SimpleNamespace(fields=("x",), shape=lambda name: (30,))),
        "has shape (30,) per row, and Grid takes x_shape: tuple[int, int] or None: reshape the data",
        lambda: Grid().adapted_to(SimpleNamespace(fields=("x",), shape=lambda name: (5, 6))),
    ),
    "a path in memory": Case(
        lambda: data.of(saved("x.npy", X)),
        "'x.npy' is a name or a path: load it with data.load('x.npy')",
        lambda: data.load("x.npy"),
    ),
    "data for rows": Case(
        lambda: Description.of(data.of(X)).named(data.of(X), ("x",)),
        "Data has splits: give the rows of one, such as data.rows('test')",
        lambda: Description.of(data.of(X)).named(data.of(X).rows("test"), ("x",)),
    ),
    "text that the run does not know": Case(
        lambda: Description.of(data.of({"x": X})).beside(written("t.csv", "a,b\n1,u\n2,u\n")),
        "was trained without such columns of text: leave out 'b'",
        lambda: Description.of(data.of({"x": X})).beside(written("t.csv", "a\n1\n2\n")),
    ),
    "no split": Case(
        lambda: data.of({"train": {"x": X}, "best": {"x": X}}),
        "is no split: name them",
        lambda: data.of({"train": {"x": X}, "test": {"x": X}}),
    ),
    "names without a split": Case(
        lambda: data.of({"x_train": X, "y": KINDS}),
        "name no split, others do: end all names in _train, _valid, _test",
        lambda: data.of({"x_train": X, "y_train": KINDS}),
    ),
    "no training rows": Case(
        lambda: data.of({"x_test": X}),
        "but no training rows: add a split train",
        lambda: data.of({"x_test": X, "x_train": X}),
    ),
    "splits of its own": Case(
        lambda: data.of({"x_test": X, "x_train": X}, test=3),
        "comes with its splits: leave out",
        lambda: data.of({"x_test": X, "x_train": X}),
    ),
    "other numbers of rows": Case(
        lambda: data.of({"x": X, "names": X[:3]}),
        "set aside what is not one per row with ignore=...",
        lambda: data.of({"x": X, "names": X[:3]}, ignore="names"),
    ),
    "text": Case(
        lambda: data.of(X.astype(str)),
        "is not numeric (type <U",
        lambda: data.of(X.astype(str).astype(float)),
    ),
    "complex": Case(lambda: data.of(X * 1j), "): convert it", lambda: data.of((X * 1j).imag)),
    "a number": Case(
        lambda: data.of(np.array(3.0)), "is a single number: give rows", lambda: data.of([3.0, 4.0])
    ),
    "64 bits": Case(
        lambda: data.of(np.full((9, 2), 2**63 + 4, np.uint64)),
        "has a whole number beyond 64 bits with a sign in row 0: scale it down",
        lambda: data.of(np.full((9, 2), 2**63 + 4, np.uint64) // 2),
    ),
    "not finite": Case(
        lambda: data.of(GAPS), "): remove or replace them", lambda: data.of(np.nan_to_num(GAPS))
    ),
    "batch size 0": Case(
        lambda: num_batches(9, 0), "is not positive: choose at least 1", lambda: num_batches(9, 1)
    ),
    "64 bits of a table": Case(
        lambda: table("a,b\n1,99999999999999999999\n2,3\n"),
        "is beyond the whole numbers of 64 bits: scale it down, or write it with a fraction",
        lambda: table("a,b\n1,99999999999999999999.0\n2,3\n"),
    ),
    "column of text": Case(
        lambda: table("a,b,c\n1,x,2\n2,y,3\n2,y,3\n"),
        "with label=..., batch=..., index=..., ignore=... or x=...",
        lambda: (
            [
                table("a,b,c\n1,x,2\n2,y,3\n2,y,3\n", **{role: "b"})
                for role in ("label", "batch", "index", "ignore")
            ]
            + [table("a,b,c\n1,x,2\n2,y,3\n2,y,3\n", x="a,c")]
        ),
    ),
    "label without a value": Case(
        lambda: table("a,b\n1,x\n2,\n3,y\n", label="b"),
        "has no value: fill it in, or drop the row",
        lambda: (table("a,b\n1,x\n2,y\n3,y\n", label="b"), table("a,b\n1,x\n3,y\n", label="b")),
    ),
    "number without a value": Case(
        lambda: table("a,b\n1,4\n2,\n3,5\n"),
        "has no value: fill it in, or mask what is missing (mask='nan')",
        lambda: (table("a,b\n1,4\n2,4\n3,5\n"), table("a,b\n1,4\n2,\n3,5\n", mask="nan")),
    ),
    "numbers as people write them": Case(
        lambda: table('a,b\n"1,000",1\n"2,000",3\n'),
        "leave out separators of thousands, units and signs, or say what the column is for (label=...",
        lambda: (
            table("a,b\n1000,1\n2000,3\n"),
            *(table('a,b\n"1,000",1\n"2,000",3\n', **{role: "a"}) for role in ("label", "ignore")),
        ),
    ),
    "struct of MATLAB": Case(
        lambda: matlab(s={"x": X}), " (of 's' save the fields: save -struct)", lambda: matlab(x=X)
    ),
    "cells without X": Case(lambda: cells(False), "has no X: name a layer as x, one of", lambda: cells(True)),
    "bits of other numbers": Case(
        lambda: data.of(X, binarize="static"),
        "scale it, or use binarize='none'",
        lambda: (data.of(X, binarize="none"), data.of((X - X.min()) / np.ptp(X), binarize="static")),
    ),
    "delimiter": Case(
        lambda: table("a,b\n1,2\n", delimiter="comma "),
        "unknown delimiter 'comma ': choose one of comma",
        lambda: table("a,b\n1,2\n3,4\n", delimiter="comma"),
    ),
    "header": Case(
        lambda: table("a,b\n1,2\n", header="perhaps"),
        ": give True or False",
        lambda: table("a,b\n1,2\n3,4\n", header=True),
    ),
    "no UTF-8": Case(
        lambda: table("größe,b\n1,2\n3,4\n".encode("latin-1")),
        "): save it as CSV in UTF-8",
        lambda: table("größe,b\n1,2\n3,4\n"),
    ),
    "two meanings": Case(
        lambda: table("length\n1,5\n2,5\n3,5\n"),
        "or a fraction after a comma (decimal=','): say which",
        lambda: (
            table("length\n1,5\n2,5\n3,5\n", decimal=","),
            table("length\n1,5\n2,5\n3,5\n", delimiter=","),
        ),
    ),
    "two columns of a file": Case(
        lambda: table("a,a\n1,2\n3,4\n"), "': rename one", lambda: table("a,b\n1,2\n3,4\n")
    ),
    "two columns of a frame": Case(
        lambda: data.of(pd.DataFrame(X, columns=["a", "a"])),
        "two columns are called 'a': rename one",
        lambda: data.of(pd.DataFrame(X, columns=["a", "b"])),
    ),
    "several arrays as x": Case(
        lambda: data.of({"a": X, "b": X}, x="a,b"),
        "only columns of a table can be several; name one array",
        lambda: data.of({"a": X, "b": X}, x="a"),
    ),
    "two arrays of one name": Case(
        lambda: data.of({"x": X, "y": KINDS, "kind": KINDS}, label="kind"),
        "leave one out with ignore=...",
        lambda: data.of({"x": X, "y": KINDS, "kind": KINDS}, label="kind", ignore="y"),
    ),
    "masked values": Case(
        lambda: data.of(np.ma.masked_invalid(GAPS)),
        "it has masked values: fill them in, or give it with mask='nan'",
        lambda: (
            data.of(np.ma.masked_invalid(GAPS).filled(0)),
            data.of(np.ma.masked_invalid(GAPS), mask="nan"),
        ),
    ),
    "nothing observed": Case(
        lambda: data.of({"x": X, "mask": np.zeros(X.shape, bool)}),
        "has no number that is observed: correct the mask, or give rows with numbers",
        lambda: data.of({"x": X, "mask": np.arange(40).reshape(X.shape) % 2 == 0}),
    ),
    "sparse and too large": Case(
        lambda: data.of(scipy.sparse.csr_matrix((4, 10**13))),
        "more than the memory here: take fewer columns",
        lambda: data.of(scipy.sparse.csr_matrix((4, 10**13))[:, :3]),
    ),
    "unknown kind of file": Case(
        lambda: data.load(written("rows.txt2", "1,2\n3,4\n")),
        "is of no known type: give .npz, .npy, .csv",
        lambda: data.load(written("rows.csv", "1,2\n3,4\n")),
    ),
    "an array as .npz": Case(
        lambda: data.load(saved("rows.npz", X)),
        "is a single array, no .npz: rename it to .npy",
        lambda: data.load(saved("rows.npy", X)),
    ),
    "arrays as .npy": Case(
        lambda: data.load(saved("rows.npy", x=X, y=KINDS)),
        "holds several arrays: rename it to .npz",
        lambda: data.load(saved("rows.npz", x=X, y=KINDS)),
    ),
    "damaged sparse matrix": Case(lambda: sparse(True), "): write it again", lambda: sparse(False)),
    "objects": Case(
        lambda: data.load(written("rows.npy", b"\x80garbage")),
        "write it with numpy.save (.npy) or numpy.savez (.npz)",
        lambda: (data.load(saved("rows.npy", X)), data.load(saved("rows.npz", x=X))),
    ),
    "images and folders": Case(
        lambda: pictures(image(), image(), folders=["cats"]),
        "some images lie in subfolders (classes) and some do not: move them",
        lambda: pictures(image(), image(), folders=["cats", "dogs"]),
    ),
    "several pictures": Case(
        lambda: pictures([image(), image(level=99)]),
        "pictures: write each into a file of its own",
        lambda: pictures(image(), image(level=99)),
    ),
    "32 bits": Case(
        lambda: pictures(Image.fromarray(WIDE.astype(np.int32))),
        "): save it with 8 or 16",
        lambda: [pictures(Image.fromarray(one)) for one in (WIDE, (WIDE >> 8).astype(np.uint8))],
    ),
    "16 bits and 8": Case(
        lambda: pictures(Image.fromarray(WIDE), image()),
        "16 bits per pixel and some 8: save all alike",
        lambda: (pictures(Image.fromarray(WIDE), Image.fromarray(WIDE)), pictures(image(), image())),
    ),
    "transparent": Case(
        lambda: pictures(image("LA", level=(9, 0))),
        "has no meaning here: lay it over a ground",
        lambda: pictures(
            Image.alpha_composite(image("RGBA", level=(0, 0, 0, 255)), image("RGBA", level=(9, 9, 9, 0)))
        ),
    ),
    "damaged image": Case(
        lambda: pictures(image(size=64), png(cut=999)),
        "): remove or replace it",
        lambda: (pictures(image(size=64), png(999), remove=["b.png"]), pictures(image(size=64), png())),
    ),
    "no image": Case(
        lambda: pictures(image(), b"words"),
        "cannot be read as an image (",
        lambda: (pictures(image(), b"words", remove=["b.png"]), pictures(image(), image())),
    ),
    "levels without x": Case(
        lambda: data.of({"z": X}, levels=9),
        "so kind and levels mean nothing here: leave them out",
        lambda: data.of({"z": X}),
    ),
    "no images": Case(
        lambda: data.of(X, kind="image"),
        "are no images; give [N, H, W], [N, H, W, C] or [N, C, H, W]",
        lambda: [data.of(GREY, kind="image"), data.of(GREY[..., None]), data.of(GREY[:, None])],
    ),
    "levels of counts": Case(
        lambda: data.of(GREY.reshape(20, -1), kind="counts", levels=256),
        "counts have no levels: leave levels out, or choose another kind",
        lambda: (
            data.of(GREY.reshape(20, -1), kind="counts"),
            data.of(GREY.reshape(20, -1), kind="vector", levels=256),
        ),
    ),
    "range of images": Case(
        lambda: data.of(GREY.astype(int) * 1000),
        "is no range of images: give 0 to 255, or floats in [0, 1]",
        lambda: (data.of(GREY), data.of(GREY / 255.0)),
    ),
    "no batches": Case(
        lambda: Loader(Batches(), ("x",)),
        "the loader yields no batches: give it rows",
        lambda: Loader(Batches({"x": X}), ("x",)),
    ),
    "rows of other shapes": Case(
        lambda: rows_by_place([X, X[:, :1]], np.dtype("f4")),
        "unlike the first: give batches of one shape, or one batch at a time",
        lambda: (
            rows_by_place([X, X], np.dtype("f4")),
            [rows_by_place(one, np.dtype("f4")) for one in (X, X[:, :1])],
        ),
    ),
    "no length": Case(
        lambda: Loader(Batches({"x": X}, length=False), ("x",)),
        "the loader has no length: give its data set (an IterableDataset) a __len__",
        lambda: Loader(Batches({"x": X}), ("x",)),
    ),
    "unlike batches": Case(
        lambda: loader({"x": X}, {"x": X[:, :1]}),
        "give every batch the same fields and shapes",
        lambda: loader({"x": X}, {"x": X[:7]}),
    ),
    "no field": Case(
        lambda: loader({"pixels": X}),
        "yield dicts with it, or tuples in the order of the program's fields",
        lambda: (loader({"x": X}), loader((X, KINDS))),
    ),
    "array to load": Case(lambda: data.load(X), "not ndarray: use data.of for arrays", lambda: data.of(X)),
    "path": Case(
        lambda: data.load("row.npy"),
        "does not exist: correct the path",
        lambda: data.load(saved("rows.npy", X)),
    ),
    "role": Case(
        lambda: data.of({"x": X, "kind": KINDS}, label=["kind"]),
        ": give the name of one column",
        lambda: data.of({"x": X, "kind": KINDS}, label="kind"),
    ),
    "roles": Case(
        lambda: data.of({"x": X, "kind": KINDS}, ignore=3),
        ": give names of columns",
        lambda: data.of({"x": X, "kind": KINDS}, ignore=["kind"]),
    ),
    "test set of its own": Case(
        lambda: splits(OWN, None, 3, 0),
        "has its own test set: leave out test and split_seed",
        lambda: splits(OWN, None, None, 0),
    ),
    "validation set of its own": Case(
        lambda: split_given(OWN, 3, None, 0),
        "has its own validation set: leave out valid",
        lambda: split_given(OWN, None, None, 0),
    ),
    "held-out rows": Case(
        lambda: data.of(X, valid="four"),
        ": give a number of rows or a fraction below 1 (0 for none)",
        lambda: [data.of(X, valid=valid) for valid in (4, 0.2, 0)],
    ),
    "part of a row": Case(
        lambda: data.of(X, valid=1.5),
        ": give a whole number of rows or a fraction below 1",
        lambda: [data.of(X, valid=valid) for valid in (2, 0.5)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_remedy_works(case, folder):
    CASES[case].carried_out()


DAMAGES = {  # of a file of a named data set: what it is overwritten with, and the message
    "cut off": (lambda whole: whole[:-20], "): remove it and fetch it again"),
    "too large": (lambda whole: gzip.compress(bytes(10**6)), "it is another file; remove it and fetch mnist"),
    "other content": (
        lambda whole: gzip.compress(b"words"),
        "another data set; remove it and fetch mnist",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_that_is_removed_is_fetched_again(case, mnist, server, monkeypatch):
    damage, says = DAMAGES[case]
    monkeypatch.setattr(Source, "largest", 10**5)
    names, (web, address) = data.registry.SOURCES["mnist"].files, server
    serve(monkeypatch, "mnist", {name: (address + name,) for name in names})
    for name in names:
        shutil.copy(mnist[0] / name, web / name)
    path = mnist[0] / names[0]
    path.write_bytes(damage(path.read_bytes()))

    def mended():
        path.unlink()
        data.fetch("mnist")
        return data.load("mnist", valid=4)

    Case(lambda: data.load("mnist", valid=4), says, mended).carried_out()


def test_the_variable_leads_to_files_that_were_put_somewhere(mnist, server, monkeypatch, tmp_path):
    def given(folder):
        monkeypatch.setenv("PPL_VAE_DATA", str(folder))
        return data.load("mnist", offline=offline, valid=4)

    own, offline = tmp_path / "own", True
    names = data.registry.SOURCES["mnist"].files
    part = Folder(tmp_path / "part", data.registry.SOURCES["mnist"])
    part.path.mkdir()
    put = lambda: shutil.copy(mnist[0] / names[0], part.path)  # noqa: E731
    Case(
        lambda: part.payload(names[0]),
        "is missing: put it there or fetch mnist again",
        lambda: put() and part.payload(names[0]),
    ).carried_out()
    shutil.move(mnist[0], own / "mnist")
    away = lambda: given(mnist[0].parent)  # noqa: E731
    there = lambda: given(own)  # noqa: E731
    Case(
        away, "offline forbids the download: set PPL_VAE_DATA to the folder that holds mnist/", there
    ).carried_out()
    Case(lambda: given(own / "nowhere"), "is not a folder: correct it or unset it", there).carried_out()
    known = partial(data.load, "mnist", offline=True, valid=4)
    Case(lambda: known(kind="image"), "holds is known: leave out kind", known).carried_out()
    offline = False
    serve(monkeypatch, "mnist", {name: (server[1] + name,) for name in names})
    Case(away, "in a folder of your own and set PPL_VAE_DATA to that folder", there).carried_out()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("PPL_VAE_DATA")
    Case(lambda: data.load("mnist"), "to a folder of your own", there).carried_out()
