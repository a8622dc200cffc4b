import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from gallery_files import PLAIN, TOY, write

import ppl_vae
from ppl_vae import Program, gallery, load
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.program import PlainProgram

ROOT = Path(ppl_vae.__file__).parent.parent
GALLERY = {"vae", "linear_gaussian", "hvae", "topdown", "counts", "vqvae"}

# names


@pytest.mark.parametrize("name", sorted(GALLERY))
def test_gallery_programs_load_from_anywhere(folder, name):
    program = load(name)
    assert isinstance(program, Program)
    assert program == load(name)
    assert type(program) is type(load(name))


def test_fields_are_set():
    assert load("vae", z_dim=7, hidden=(30,)).z_dim == 7
    assert load("vae", hidden=[30, 20]).hidden == (30, 20)


def test_the_table_needs_no_backend(folder):
    code = (
        "import json, sys\nfrom ppl_vae import gallery\nrows = gallery.names()\n"
        "heavy = sorted({'torch', 'jax', 'numpy', 'pyro', 'numpyro'} & set(sys.modules))\n"
        "print(json.dumps([heavy, rows]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, rows = json.loads(done.stdout)
    assert heavy == []
    assert {row[0] for row in rows} == GALLERY
    assert all(row[1] and row[3] == "gallery" and row[2] for row in rows)
    lines = {row[0]: row[1] for row in rows}
    assert lines["vae"] == "Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114)."


def test_the_table_reads_backends_and_survives_broken_files(folder):
    write(folder / "models/toy.py", TOY)
    one = TOY.replace("    z_dim: int = 2\n", '    backends = ("pyro",)\n    z_dim: int = 2\n')
    write(folder / "models/one.py", one)
    annotated = one.replace("backends =", "backends: ClassVar[tuple] =")
    write(folder / "models/annotated.py", annotated)
    write(folder / "models/plain.py", PLAIN)
    write(folder / "models/broken.py", "def f(:\n")
    (folder / "models/bytes.py").write_bytes(b"\xff\xfe")
    write(folder / "models/_private.py", TOY)
    rows = {row.name: row for row in gallery.names()}
    assert set(rows) == GALLERY | {"toy", "one", "annotated", "plain", "broken", "bytes"}
    assert rows["toy"] == ("toy", "A toy.", ("pyro", "numpyro"), "file")
    assert rows["one"].backends == rows["annotated"].backends == ("pyro",)
    assert rows["plain"] == ("plain", "Two functions.", ("pyro",), "file")
    assert "SyntaxError" in rows["broken"].summary
    assert "cannot read" in rows["bytes"].summary


def test_unknown_names_give_the_close_ones(folder):
    with pytest.raises(UsageError, match=r"^unknown model 'vqae': did you mean vqvae"):
        load("vqae")
    with pytest.raises(
        UsageError, match=r"choose one of counts, hvae, linear_gaussian, topdown, vae, vqvae, or give a path"
    ):
        load("something-else")
    write(folder / "mine.py", TOY)
    with pytest.raises(UsageError, match=r"for the file of this folder write mine\.py"):
        load("mine")
    with pytest.raises(UsageError, match="unknown model ''"):
        load("")


def test_missing_files_and_folders(folder):
    with pytest.raises(UsageError, match=r"there is no model file gone\.py"):
        load("gone.py")
    with pytest.raises(UsageError, match=r"there is no model file \.: it is a folder"):
        load(Path("."))
    with pytest.raises(UsageError, match=r"there is no model file \.\./vae"):
        load("../vae")


# the order of places


def test_the_working_folder_comes_before_the_package_and_a_path_before_both(folder):
    assert gallery.source("vae").origin == "gallery"
    local = write(folder / "models/vae.py", TOY)
    assert (gallery.source("vae").path, gallery.source("vae").origin) == (local, "file")
    assert type(load("vae")).__name__ == "Toy"
    assert type(load(ROOT / "models/vae.py")).__name__ == "VAE"


def test_in_the_checkout_a_name_means_the_gallery(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert gallery.source("vae").origin == "gallery"
    assert gallery.source("models/vae.py").origin == "file"


def test_without_a_checkout_the_packaged_copy_is_taken(folder, monkeypatch):
    package = write(folder / "site/ppl_vae/__init__.py", "").parent
    write(package / "_gallery/models/toy.py", TOY)
    write(folder / "site/models/vae.py", TOY)  # another project's top-level folder is not ours
    monkeypatch.setattr(ppl_vae, "__file__", str(package / "__init__.py"))
    assert gallery.packaged() == package / "_gallery"
    assert [row.name for row in gallery.names()] == ["toy"]


def test_a_stale_copy_beside_a_checkout_is_never_used(folder, monkeypatch):
    package = write(folder / "repo/ppl_vae/__init__.py", "").parent
    write(package / "_gallery/models/stale.py", TOY)
    write(folder / "repo/models/fresh.py", TOY)
    write(folder / "repo/pyproject.toml", "")
    monkeypatch.setattr(ppl_vae, "__file__", str(package / "__init__.py"))
    assert [row.name for row in gallery.names()] == ["fresh"]


# what a file may declare


def test_source_tells_name_hash_and_text(folder):
    path = write(folder / "toy.py", TOY)
    source = gallery.source("toy.py")
    assert (source.name, source.path, source.text, source.origin) == ("toy", path, TOY, "file")
    assert source.sha256 == hashlib.sha256(TOY.encode()).hexdigest()


def test_an_edited_file_is_read_again(folder):
    path = write(folder / "toy.py", TOY)
    before = load("toy.py")
    path.write_text(TOY.replace("z_dim: int = 2", "z_dim: int = 5"))
    assert (before.z_dim, load("toy.py").z_dim) == (2, 5)


def test_program_names_the_one_that_is_meant(folder):
    two = TOY + TOY.partition("import Program\n")[2].replace("Toy", "Other")
    write(folder / "two.py", two)
    with pytest.raises(ProgramError, match=r"two\.py declares 2 programs \(Toy, Other\)"):
        load("two.py")
    write(folder / "named.py", two + "\nprogram = Other\n")
    assert type(load("named.py")).__name__ == "Other"
    write(folder / "made.py", two + "\nprogram = Other(z_dim=9)\n")
    assert load("made.py").z_dim == 9
    changed = load("made.py", width=4)
    assert (changed.z_dim, changed.width) == (9, 4)
    write(folder / "wrong.py", TOY + "\nprogram = 3\n")
    with pytest.raises(ProgramError, match="`program` is a int, not a Program"):
        load("wrong.py")


def test_private_and_imported_programs_do_not_count(folder):
    write(folder / "toy.py", TOY.replace("class Toy", "class _Base") + TOY.partition("import Program\n")[2])
    assert type(load("toy.py")).__name__ == "Toy"


def test_two_functions_are_a_plain_program(folder):
    write(folder / "plain.py", PLAIN)
    program = load("plain.py")
    assert isinstance(program, PlainProgram)
    assert (program.name, program.backend, program.backends) == ("plain", "pyro", ("pyro",))
    assert program.model.__globals__ is not load("plain.py").model.__globals__  # globals are not shared
    with pytest.raises(UsageError, match="plain has no field 'z_dim': it has no fields"):
        load("plain.py", z_dim=2)


def test_the_backend_of_plain_functions(folder):
    functions = "def model(x): pass\ndef guide(x): pass\n"
    write(folder / "jaxy.py", "import numpyro.distributions as dist\n" + functions)
    assert load("jaxy.py").backend == "numpyro"
    write(folder / "none.py", functions)
    with pytest.raises(ProgramError, match="imports neither pyro nor numpyro: say which"):
        load("none.py")
    write(folder / "said.py", 'backend = "numpyro"\n' + functions)
    assert load("said.py").backend == "numpyro"
    write(folder / "both.py", "import pyro, numpyro\n" + functions)
    with pytest.raises(ProgramError, match="imports pyro and numpyro: say which"):
        load("both.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("def guide", "def guidance"), r"bad\.py has a model but no guide"),
        (PLAIN.replace("def model", "def story"), r"bad\.py has a guide but no model"),
        (TOY.replace("def guide", "def guidance"), r"bad\.py: class Toy has no guide\(self, ppl, net"),
        (TOY.replace("def model", "def story"), r"bad\.py: class Toy has no model"),
        (TOY.replace("@dataclass(frozen=True)\n", ""), r"put @dataclass\(frozen=True\) above class Toy"),
        (TOY.replace("(frozen=True)", ""), r"class Toy .*frozen"),
        ("x = 1\n", r"bad\.py declares no program"),
        ("x = 1\n\ny = (\n", r"bad\.py, line 3: SyntaxError: '\(' was never closed"),
        ("x = 1\n\n1 / 0\n", r"bad\.py, line 3: ZeroDivisionError: division by zero"),
        ("import no_such_module\n", r"line 1: ModuleNotFoundError: .*\(install it, or put its folder"),
        ("\n\nraise SystemExit(3)\n", r"bad\.py, line 3: SystemExit: 3"),
        ("x = '\0'\n", r"bad\.py.*null bytes"),
        ("def f():\n    import json\n    json.loads('{')\n\nf()\n", r"bad\.py, line 3: JSONDecodeError"),
    ],
)
def test_files_that_fail_are_named_with_the_cause(folder, text, message):
    write(folder / "bad.py", text)
    before = set(sys.modules)
    with pytest.raises(ProgramError, match=message) as caught:
        load("bad.py")
    assert "\n" not in str(caught.value)
    assert str(folder / "bad.py") in str(caught.value)
    if "line" in message:
        assert not {name for name in set(sys.modules) - before if name.startswith("ppl_vae_model_")}


def test_bad_fields(folder):
    with pytest.raises(
        UsageError, match=r"vae has no field 'zdim': did you mean z_dim\? It has x_shape, z_dim"
    ):
        load("vae", zdim=3)
    with pytest.raises(UsageError, match="z_dim=0: a size must be at least 1"):
        load("vae", z_dim=0)
    write(folder / "needs.py", TOY.replace("z_dim: int = 2", "z_dim: int"))
    with pytest.raises(UsageError, match="needs: .*missing 1 required .*z_dim"):
        load("needs.py")
    asserts = "    width: int = 3\n\n    def __post_init__(self):\n        raise ValueError('width is odd')\n"
    write(folder / "odd.py", TOY.replace("    width: int = 3\n", asserts))
    with pytest.raises(UsageError, match="^odd: width is odd$"):
        load("odd.py")


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("vae", "hidden", 400, r"hidden=400: give tuple\[int, \.\.\.\], such as \(400,\)"),
        ("vae", "hidden", (4, "a"), r"hidden=\(4, 'a'\): give tuple\[int, \.\.\.\]$"),
        ("vae", "z_dim", "four", "z_dim='four': give a whole number"),
        ("vae", "z_dim", 2.5, "z_dim=2.5: give a whole number"),
        ("vae", "z_dim", None, "z_dim=None: give a whole number"),
        ("vae", "x_shape", 7, r"x_shape=7: give tuple\[int, \.\.\.\] or None, such as \(7,\)"),
        ("vae", "likelihood", 3, "likelihood=3: give a text"),
        ("linear_gaussian", "sigma", "x", "sigma='x': give a number"),
        ("vqvae", "learned_prior", 1, "learned_prior=1: give True or False"),
    ],
)
def test_fields_are_what_their_annotations_say(name, field, value, message):
    with pytest.raises(UsageError, match=message):
        load(name, **{field: value})


def test_annotations_that_say_nothing_and_defaults_are_taken_as_they_are(folder):
    fields = '    z_dim: "Any" = 2\n    width: "no.such" = 3\n    rate: float = 1\n    size: tuple = None\n'
    later = "from __future__ import annotations\n"
    write(
        folder / "toy.py",
        later + TOY.partition('"""\n')[2].replace("    z_dim: int = 2\n    width: int = 3\n", fields),
    )
    assert load("toy.py", z_dim="x", width=[1]).width == (1,)
    assert load("toy.py", rate=2).size is None
    with pytest.raises(UsageError, match="rate='x': give a number"):
        load("toy.py", rate="x")
