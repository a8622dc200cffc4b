"""The notebooks run from top to bottom without a warning, and are kept with their pictures."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
STRICT = """
import warnings
warnings.simplefilter("error")
# ArviZ 0.23 calls matplotlib 3.11 in a way that 3.13 drops.
warnings.filterwarnings("ignore", "Passing a dict or None as alias_mapping")
"""


def named(path):
    return path.stem


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def complaints(notebook):
    """Return what cells wrote to stderr: warnings, and messages of libraries."""
    return [out.text for out in outputs(notebook) if out.output_type == "stream" and out.name == "stderr"]


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS][:1] == ["01_first_vae.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_SMOKE", "1")
    # The kernel shows pictures inline, as a reader's does.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    # Run in an empty folder: a notebook needs nothing beside it and leaves nothing behind.
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert complaints(notebook) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_is_kept_as_it_ran(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert complaints(notebook) == []
    assert not [out for out in outputs(notebook) if out.output_type == "error"]
    pictures = [out for out in outputs(notebook) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 5
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_names_no_machine(path):
    notebook = nbformat.read(path, 4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/", path.read_text())
