"""The wheel as a user gets it: its contents, and its use outside the checkout in a fresh environment."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ppl_vae

ROOT = Path(ppl_vae.__file__).parent.parent
MODELS = {path.name for path in (ROOT / "models").glob("*.py")}
SCRIPTS = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "inference").rglob("*")
    if path.suffix in {".py", ".yaml", ".json"}
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, cwd, code=0):
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, made from the sdist, and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The commands of a fresh environment: the wheel is its own, the dependencies are this environment's."""
    home = tmp_path_factory.mktemp("user") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent)
    python = home / "bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", built[0], cwd=home.parent)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    # Searched last; the .pth files in it, such as that of an editable install, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_the_package_and_the_gallery_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ppl_vae", f"ppl_vae-{PROJECT['version']}.dist-info"}
    gallery = {
        name.removeprefix("ppl_vae/_gallery/") for name in names if name.startswith("ppl_vae/_gallery/")
    }
    assert {name for name in gallery if name.startswith("models/")} == {f"models/{name}" for name in MODELS}
    assert {name for name in gallery if name.startswith("inference/")} == SCRIPTS
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ppl_vae").rglob("*.py")
        if "_gallery" not in path.parts
    }
    assert package <= names


def test_the_sdist_holds_what_is_needed_to_test_and_build(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= {f"models/{name}" for name in MODELS} | SCRIPTS
    assert names >= {"README.md", "LICENSE", "Makefile", "constraints/cpu.txt", "pyproject.toml"}
    assert names >= {"tests/test_package.py"}


def test_the_package_is_the_installed_one(installed, tmp_path):
    code = "import ppl_vae; print(ppl_vae.__file__); print(ppl_vae.__version__)"
    file, version = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent)
    assert version == PROJECT["version"]


def test_the_commands_work_outside_the_checkout(installed, tmp_path):
    command = installed / "ppl-vae"
    listed = run(command, "list", cwd=tmp_path)
    assert all(name.removesuffix(".py") in listed for name in MODELS)
    run(command, "copy", "vae", ".", cwd=tmp_path)
    assert (tmp_path / "vae.py").read_bytes() == (ROOT / "models/vae.py").read_bytes()
    run(command, "copy", "vae", ".", cwd=tmp_path, code=2)
    train = ("train", "vae.py", "--data", "digits", "--max-steps", "3", "--model.z_dim", "2", "--out", "run")
    run(command, *train, cwd=tmp_path)
    result = json.loads(run(command, "evaluate", "run", cwd=tmp_path).splitlines()[-1])
    assert result["elbo_nats"] < 0 and result["backend"] == "pyro"


def test_constraints_pin_every_requirement():
    lines = (ROOT / "constraints/cpu.txt").read_text().splitlines()
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in lines
        if line and not line.startswith("#")
    }
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    wanted = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    names = {one.split(">")[0].split("=")[0].strip().lower() for one in wanted}
    assert names <= pinned
