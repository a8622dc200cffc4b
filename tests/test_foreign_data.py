"""Data that others made: bounds on what is read, nothing lost on the way, names that are no text."""

import io
import os
import sys

import h5py
import numpy as np
import pytest
import scipy.io
from command_line import ok, refused
from PIL import Image
from test_containers import mat73

from ppl_vae import bars, data
from ppl_vae.cli import tables
from ppl_vae.data import columns, containers, files
from ppl_vae.errors import DataError
from ppl_vae.reading import memory
from ppl_vae.summaries import readable, text


def picture(path, value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("L", (4, 3), value).save(file, format="PNG")


def test_a_folder_is_walked_no_further_than_images_are_likely(folder, monkeypatch):
    monkeypatch.setattr(files, "OTHERS", 20)
    for i in range(30):
        picture(folder / "mixed" / "deep" / f"{i}.png", i)
        (folder / "mixed" / "deep" / f"{i}.json").write_text("{}")
    assert data.load("mixed", valid=0, test=0).num_rows("train") == 30
    for i in range(30):
        (folder / "others" / str(i)).mkdir(parents=True)
    monkeypatch.setattr(files, "_opened", lambda path: pytest.fail("it went on"))
    with pytest.raises(DataError, match="others holds 0 images among 21 other files and folders"):
        data.load("others")


def test_links_to_folders_are_followed_once_and_what_is_no_file_is_told(folder):
    picture(folder / "elsewhere" / "a.png")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "cat").symlink_to(folder / "elsewhere")
    assert data.load("pictures", valid=0, test=0).coords == {"y": ["cat"]}
    (folder / "elsewhere" / "loop").symlink_to(folder / "pictures")
    assert "links to a folder that is read already" in refused(1, "data", "info", "pictures")
    (folder / "elsewhere" / "loop").unlink()
    (folder / "elsewhere" / "gone.png").symlink_to("nowhere")
    assert "gone.png is no ordinary file" in refused(1, "data", "info", "pictures")
    (folder / "elsewhere" / "gone.png").unlink()
    assert data.load("pictures", valid=0, test=0).num_rows("train") == 1


def test_names_of_files_that_are_no_text_are_written_out(folder):
    picture(folder / "odd" / os.fsdecode(b"\xff") / os.fsdecode(b"\xe9.png"))
    found = data.load("odd", valid=0, test=0)
    assert found.coords == {"y": ["\\xff"]} and found.labels["train"].tolist() == ["\\xff/\\xe9.png"]


def test_text_of_arrays_is_text(folder):
    broken = np.array(["a", "b\ud800"])
    with pytest.raises(DataError, match="'kind' holds text that is no Unicode"):
        data.of({"x": np.zeros((2, 3)), "kind": broken}, label="kind", valid=0, test=0)
    with pytest.raises(DataError, match="'names of rows' holds text that is no Unicode"):
        columns.as_texts(broken, "names of rows")


@pytest.mark.parametrize("kind", ["link", "storage", "beyond", "matlab"])
def test_hdf5_of_other_files_or_beyond_memory_is_refused(folder, kind, monkeypatch):
    mat73(folder / "a.mat", x=np.zeros((20, 3)))
    if kind in ("matlab", "beyond"):
        monkeypatch.setattr(containers, "memory", lambda: 100)
    if kind == "matlab":
        scipy.io.savemat("a.mat", {"x": np.zeros((20, 3))})
    with h5py.File("b.h5" if kind == "matlab" else "a.mat", "a") as file:
        if kind == "link":
            file["other"] = h5py.ExternalLink("/etc/other.h5", "/x")
        elif kind == "storage":
            file.create_dataset("other", (4,), "u1", external=[("/etc/passwd", 0, 4)])
    said = "takes data of other files" if kind in ("link", "storage") else "more than this machine's memory"
    with pytest.raises(DataError, match=f"a.mat .*{said}"):
        data.load("a.mat")
    monkeypatch.setattr(containers, "memory", memory)
    mat73(folder / "a.mat", x=np.zeros((20, 3)))  # nothing of other files, and no more than memory holds
    assert data.load("a.mat").shape("x") == (3,)


def test_a_file_that_ends_its_reader_is_refused(folder):
    with pytest.raises(DataError, match="a.mat is damaged: what reads it ends without a word"):
        containers._refuse_fatal(folder / "a.mat", "import os; os.abort()")


def test_a_table_of_very_many_columns_takes_no_square_of_them(folder):
    names = ",".join(f"c{i}" for i in range(20_000))
    (folder / "wide.csv").write_text(f"{names}\n" + ",".join(["0.5"] * 20_000) + "\n")
    found = data.load("wide.csv", x=["c7"], valid=0, test=0)
    assert found.shape("x") == (1,) and "and 19993 more left out" in found.notes[0]


def test_what_a_terminal_obeys_is_written_out_wherever_it_is_told(folder):
    assert readable("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\n"
    assert "\x1b" not in text("\x1b[1mrun", [("a\x1b", "1")])
    stream = io.StringIO()
    tables.show({"program": "p\x1b]0;t\x07", "backend": "pyro", "out": "a\x1b[2Jb", "c\x9b": "d"}, stream)
    assert stream.getvalue().isascii() and "\x1b" not in stream.getvalue()
    (folder / "t.csv").write_text("a\x1b[2J,b\nx,1\ny,2\n")
    ok("data", "info", "t.csv", "--label", "a\x1b[2J")


def test_a_bar_that_cannot_be_drawn_ends_no_training(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text=""):
            raise OSError(5, "Input/output error")

        flush = write

    monkeypatch.setattr(sys, "stderr", Gone())
    with bars.training(3, 0, asked=True) as tell:
        tell(3, {})
