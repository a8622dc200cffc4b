"""Who may import whom, read from the source, and the sizes that keep files readable."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_vae

PACKAGE = Path(ppl_vae.__file__).parent
ROOT = PACKAGE.parent
TORCH = {"torch", "pyro", "lightning_fabric", "torchvision", "tensorboard"}
JAX = {"jax", "jaxlib", "numpyro", "flax", "optax", "orbax"}
UPPER = ("ppl_vae.backends", "ppl_vae.api", "ppl_vae.cli")  # everything else in ppl_vae is the ground
PUBLIC = {name for name in ppl_vae.__all__ if not name.startswith("_")}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def under(module, *prefixes):
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def imported(path, module=""):
    """Return the full names of all modules that a file imports, inside functions too."""
    found = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names = {alias.name for alias in node.names}
            found |= {f"{base}.{name}" if is_module(f"{base}.{name}") else base for name in names}
            if base == "ppl_vae":
                found |= {f"ppl_vae.{name}" for name in names & PUBLIC}
    return found


def is_module(name):
    place = ROOT / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def heads(modules):
    return {name.split(".")[0] for name in modules}


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_gallery" not in path.parts}
GROUND = [name for name in SOURCES if name != "ppl_vae" and not under(name, *UPPER)]
PYRO = [name for name in SOURCES if under(name, "ppl_vae.backends.pyro")]
NUMPYRO = [name for name in SOURCES if under(name, "ppl_vae.backends.numpyro")]
MODELS = sorted((ROOT / "models").glob("*.py"))


@functools.cache
def imports_of(name):
    return imported(SOURCES[name], name)


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_sees_no_backend(name):
    found = imports_of(name)
    assert not heads(found) & (TORCH | JAX)
    assert not [one for one in found if under(one, *UPPER)]
    functions = {f"ppl_vae.{one}" for one in ppl_vae._HOMES if ppl_vae._HOMES[one] == "api"}
    assert not found & functions


@pytest.mark.parametrize("name", [one for one in GROUND if under(one, "ppl_vae.store", "ppl_vae.data")])
def test_store_and_data_know_neither_programs_nor_each_other(name):
    own = ".".join(name.split(".")[:2])
    ours = {one for one in imports_of(name) if under(one, "ppl_vae")}
    known = (own, "ppl_vae.errors", "ppl_vae.checks", "ppl_vae.reading", "ppl_vae.summaries")
    assert not [one for one in ours if not under(one, *known)]


@pytest.mark.parametrize(
    "name", [one for one in GROUND if under(one, "ppl_vae.report", "ppl_vae.diagnostics")]
)
def test_diagnostics_and_report_see_arrays_only(name):
    ours = {one for one in imports_of(name) if under(one, "ppl_vae")}
    assert not [one for one in ours if under(one, "ppl_vae.program", "ppl_vae.gallery", "ppl_vae.objectives")]


@pytest.mark.parametrize("name", [one for one in GROUND if under(one, "ppl_vae.networks")])
def test_networks_know_shapes_and_functions_only(name):
    known = (
        "ppl_vae.networks",
        "ppl_vae.declaration",
        "ppl_vae.errors",
        "ppl_vae.functions",
        "ppl_vae.shapes",
    )
    ours = {one for one in imports_of(name) if under(one, "ppl_vae")}
    assert not [one for one in ours if not under(one, *known, "ppl_vae.likelihoods", "ppl_vae.distributions")]


@pytest.mark.parametrize("name", PYRO)
def test_pyro_never_sees_jax(name):
    found = imports_of(name)
    assert not heads(found) & JAX
    assert not [one for one in found if under(one, "ppl_vae.backends.numpyro", "ppl_vae.api", "ppl_vae.cli")]


@pytest.mark.parametrize("name", NUMPYRO)
def test_numpyro_never_sees_torch(name):
    found = imports_of(name)
    assert not heads(found) & TORCH
    assert not [one for one in found if under(one, "ppl_vae.backends.pyro", "ppl_vae.api", "ppl_vae.cli")]


@pytest.mark.parametrize("name", [one for one in SOURCES if not under(one, "ppl_vae.cli")])
def test_nothing_imports_the_command_line(name):
    assert not [one for one in imports_of(name) if under(one, "ppl_vae.cli")]


@pytest.mark.parametrize("name", SOURCES)
def test_the_library_imports_neither_models_nor_scripts(name):
    assert not heads(imports_of(name)) & {"models", "inference", "tests", "benchmarks"}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_import_only_the_standard_library_and_backend_free_names(path):
    found = imported(path)
    assert heads(found) - set(sys.stdlib_module_names) <= {"ppl_vae"}
    ours = {one for one in found if under(one, "ppl_vae")}
    free = {f"ppl_vae.{name}" for name, home in ppl_vae._HOMES.items() if home != "api"} | {"ppl_vae"}
    assert not [one for one in ours if one not in free and one not in GROUND]


def loaded_by(code):
    """Return the top-level modules that are loaded after some code has run in a fresh process."""
    code += "\nimport sys\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_import_ppl_vae_is_light():
    assert not loaded_by("import ppl_vae; dir(ppl_vae)") & (
        TORCH | JAX | {"numpy", "scipy", "xarray", "matplotlib"}
    )


def test_declaring_a_program_needs_the_standard_library_only():
    names = "Network, Program, ELBO, IWAE, load"
    code = f"from ppl_vae import {names}\nfor name in ('vae', 'vqvae', 'topdown'): load(name)"
    assert not loaded_by(code) & (TORCH | JAX | {"numpy", "scipy", "xarray", "matplotlib"})


def test_the_ground_loads_no_backend():
    assert not loaded_by("\n".join(f"import {name}" for name in GROUND)) & (TORCH | JAX)


@pytest.mark.parametrize(("names", "banned"), [(PYRO, JAX), (NUMPYRO, TORCH)], ids=["pyro", "numpyro"])
def test_a_backend_loads_without_the_other(names, banned):
    assert names
    assert not loaded_by("\n".join(f"import {name}" for name in names)) & banned


def test_every_public_name_exists():
    for name in PUBLIC:
        assert getattr(ppl_vae, name) is not None
    assert set(dir(ppl_vae)) >= PUBLIC
    with pytest.raises(AttributeError, match="module 'ppl_vae' has no attribute 'fitt'"):
        _ = ppl_vae.fitt


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_stay_short(name):
    text = SOURCES[name].read_text()
    assert len(text.splitlines()) < 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (
                node.end_lineno - first.lineno + 1
            )  # the code alone: a docstring may be as long as it needs
            assert length < 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_files_stay_short(path):
    assert len(path.read_text().splitlines()) < 120
