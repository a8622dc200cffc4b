import json
from dataclasses import replace
from pathlib import Path

import pytest
from gallery_files import PLAIN, TOY, write

import ppl_vae
from ppl_vae import Program, gallery, load
from ppl_vae.errors import RunError, UsageError
from ppl_vae.program import PlainProgram

ROOT = Path(ppl_vae.__file__).parent.parent


# runs


def test_a_gallery_name_in_a_run_means_the_packaged_gallery(folder):
    record = gallery.source_of(load("vae", z_dim=3)).record()
    assert record == {"origin": "gallery", "name": "vae", "sha256": gallery.source("vae").sha256}
    write(folder / "models/vae.py", "raise RuntimeError('executed')\n")
    assert gallery.load_recorded(record, fields={"z_dim": 4}) == load(ROOT / "models/vae.py", z_dim=4)


@pytest.mark.parametrize("name", ["../models/vae", "gone", "", "/etc/passwd"])
def test_a_gallery_name_that_is_none_is_refused(name):
    with pytest.raises(RunError, match="model_file="):
        gallery.load_recorded({"origin": "gallery", "name": name})


def test_a_users_file_is_opened_only_unchanged(folder):
    path = write(folder / "toy.py", TOY)
    program = load("toy.py", z_dim=4)
    record = json.loads(json.dumps(gallery.source_of(replace(program, width=8)).record()))
    assert record["path"] == str(path)
    assert gallery.load_recorded(record, fields={"z_dim": 4}) == program
    path.write_text(TOY + "raise RuntimeError('executed')\n")
    with pytest.raises(RunError, match=r"toy\.py has changed since the run: restore it, or .* model_file="):
        gallery.load_recorded(record)
    path.unlink()
    with pytest.raises(RunError, match=r"toy\.py is gone: .* model_file="):
        gallery.load_recorded(record)
    other = write(folder / "other.py", TOY)
    assert gallery.load_recorded(record, other, fields={"z_dim": 4}).z_dim == 4
    with pytest.raises(UsageError, match="there is no model file"):
        gallery.load_recorded(record, "gone.py")


def test_a_plain_file_is_recorded_too(folder):
    write(folder / "plain.py", PLAIN)
    source = gallery.source_of(load("plain.py"))
    assert (source.origin, source.name) == ("file", "plain")
    assert gallery.load_recorded(source.record()).name == "plain"


def test_files_inside_a_run_are_never_executed_unasked(folder):
    inside = write(folder / "run/model.py", TOY)
    (folder / "link").symlink_to(folder / "run")
    record = gallery.source(inside).record()
    words = r"inside the run folder and is not executed unasked: .*model_file="
    elsewhere = r"which leads to .*run/model\.py: .*model_file="
    for path, told in (
        (inside, words),
        (folder / "link/model.py", elsewhere),
        (folder / "run/../run/model.py", elsewhere),
    ):
        with pytest.raises(RunError, match=told):
            gallery.load_recorded(record | {"path": str(path)}, run=folder / "link")
    with pytest.raises(RunError, match="relative path"):
        gallery.load_recorded(record | {"path": "run/model.py"}, run=folder / "run")
    assert gallery.load_recorded(record, inside, run=folder / "run").z_dim == 2


def test_programs_defined_in_python_have_names_of_their_own():
    source = gallery.source_of(Local())
    assert (source.name, source.origin, source.path) == ("Local", "session", None)
    assert "class Local(Program)" in source.text
    with pytest.raises(RunError, match="'Local' was defined in a session .*model_file="):
        gallery.load_recorded(source.record())
    plain = PlainProgram(len, len, "built in")
    assert gallery.source_of(plain).text.endswith("model = len\n\nguide = len\n")


class Local(Program):
    pass


# copy and scripts


def test_copy_to_a_folder_and_to_a_file(folder):
    original = (ROOT / "models/vae.py").read_bytes()
    assert gallery.copy("vae", ".") == Path("vae.py")
    assert gallery.copy("vae", "mine.py") == Path("mine.py")
    assert (folder / "vae.py").read_bytes() == (folder / "mine.py").read_bytes() == original
    assert load("mine.py").z_dim == load("vae").z_dim


def test_copy_never_overwrites(folder):
    write(folder / "vae.py", "precious")
    for dest in (".", "vae.py"):
        with pytest.raises(UsageError, match=r"vae\.py exists and is not overwritten"):
            gallery.copy("vae", dest)
    assert (folder / "vae.py").read_text() == "precious"
    with pytest.raises(UsageError, match="there is no folder no/such/folder: make it first"):
        gallery.copy("vae", "no/such/folder/vae.py")
    with pytest.raises(UsageError, match="did you mean vae"):
        gallery.copy("vea", "vea.py")
    assert sorted(path.name for path in folder.iterdir()) == ["vae.py"]


def test_scripts_and_recipes_are_found_in_the_same_way(folder):
    mine = write(folder / "inference/mine.py", "")
    write(folder / "inference/_shared.py", "")
    recipe = write(folder / "inference/recipes/mine-small.yaml", "a: 1\n")
    assert gallery.script("mine") == mine
    assert "mine" in gallery.scripts() and "_shared" not in gallery.scripts()
    assert gallery.find("mine-small", "recipe") == recipe
    assert gallery.copy("mine-small", ".").read_text() == "a: 1\n"
    with pytest.raises(UsageError, match="unknown script 'mien': did you mean mine"):
        gallery.script("mien")
