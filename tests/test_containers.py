"""Files of MATLAB, Parquet and AnnData are data as they are found."""

import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from command_line import SMALL, ok, refused

from ppl_vae import data
from ppl_vae.errors import DataError, UsageError

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(3.0, (40, 5))
KIND = np.array(["B cell", "T cell"])[RNG.integers(0, 2, 40)]
NAMES = [f"c{i:02d}" for i in range(40)]


def rows_of(found, field="x"):
    """Return the rows of all splits in the order of the file."""
    names = np.concatenate([found.labels[split] for split in ("train", "valid", "test")])
    values = np.concatenate([found.raw(split)[field] for split in ("train", "valid", "test")])
    return values[np.argsort(names)]


def test_a_table_in_parquet_keeps_the_names_of_columns_rows_and_classes(tmp_path):
    frame = pd.DataFrame(COUNTS, columns=list("abcde"), index=NAMES).assign(kind=KIND)
    frame.to_parquet(tmp_path / "t.parquet")
    found = data.load(tmp_path / "t.parquet", label="kind")
    assert found.kind == "counts" and found.coords == {"x": list("abcde"), "y": ["B cell", "T cell"]}
    np.testing.assert_array_equal(rows_of(found), COUNTS)
    np.testing.assert_array_equal(np.array(found.coords["y"])[rows_of(found, "y")], KIND)
    with pytest.raises(DataError, match="'kind'"):
        data.load(tmp_path / "t.parquet")


def mat73(path, **arrays):
    """Write arrays as MATLAB 7.3 does: HDF5 behind a header of its own, the axes the other way round."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("write", [lambda path, **held: scipy.io.savemat(path, held), mat73])
def test_arrays_of_matlab_are_fields_and_the_only_table_is_x(tmp_path, write):
    write(tmp_path / "m.mat", spectra=COUNTS / 7, y=np.arange(40.0)[:, None] % 3)
    found = data.load(tmp_path / "m.mat", valid=0, test=0)
    np.testing.assert_allclose(np.sort(found.raw("train")["x"], 0), np.sort(COUNTS / 7, 0), rtol=1e-6)
    assert found.shape("y") == () and any("'spectra' as x" in note for note in found.notes)
    write(tmp_path / "two.mat", left=COUNTS / 7, right=COUNTS / 3)
    two = data.load(tmp_path / "two.mat", x="right", ignore="left", valid=0, test=0)
    assert two.raw("train")["x"].max() == pytest.approx(COUNTS.max() / 3)


def test_what_is_no_array_of_numbers_in_matlab_is_left_out_with_a_line(tmp_path):
    column = scipy.sparse.csc_matrix(np.arange(len(COUNTS))[:, None] % 2)
    held = {"x": scipy.sparse.csc_matrix(COUNTS), "y": column, "about": "a text", "s": {"a": 1.0}}
    scipy.io.savemat(tmp_path / "m.mat", held)
    found = data.load(tmp_path / "m.mat", valid=0, test=0)
    assert list(found.fields) == ["x", "y"]
    np.testing.assert_array_equal(np.sort(found.raw("train")["y"]), np.sort(np.arange(len(COUNTS)) % 2))
    assert all(any(f"{name!r} left out" in note for note in found.notes) for name in ("about", "s"))
    scipy.io.savemat(tmp_path / "s.mat", {"s": {"x": COUNTS}})
    with pytest.raises(DataError, match=r"no arrays of numbers \(of 's' save the fields"):
        data.load(tmp_path / "s.mat")


def test_texts_of_matlab_are_labels(tmp_path):
    names = np.array(["B cell", "T"], dtype=object)[np.arange(len(COUNTS)) % 2]
    scipy.io.savemat(tmp_path / "old.mat", {"x": COUNTS, "cell": names[:, None], "rows": names.astype(str)})
    mat73(tmp_path / "new.mat", x=COUNTS)
    with h5py.File(tmp_path / "new.mat", "r+") as file:
        places = []
        for i, name in enumerate(names):
            text = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            text.attrs["MATLAB_class"] = np.bytes_("char")
            places.append(text.ref)
        cell = file.create_dataset("cell", data=np.array([places], h5py.ref_dtype))
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    for file, label in (("old", "cell"), ("old", "rows"), ("new", "cell")):
        found = data.load(tmp_path / f"{file}.mat", label=label, valid=0, test=0)
        assert found.coords["y"] == ["B cell", "T"] and found.kind == "counts"
        texts = np.array(found.coords["y"])[found.splits["train"]["y"]]
        assert dict(zip(map(tuple, found.raw("train")["x"]), texts, strict=True)) == dict(
            zip(map(tuple, COUNTS), names, strict=True)
        )


def cells(path):
    import anndata

    with pd.option_context("mode.string_storage", "python"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = anndata.AnnData(
            scipy.sparse.csr_matrix(np.log1p(COUNTS).astype("f")),
            obs=pd.DataFrame({"kind": KIND, "site": ["north", "south"] * 20, "quality": 1.0}, index=NAMES),
            var=pd.DataFrame(index=list("vwxyz")),
            layers={"counts": COUNTS.astype("f")},
        )
        anndata.settings.allow_write_nullable_strings = True
        made.write_h5ad(path)


def test_cells_with_labels_batches_names_and_layers(tmp_path):
    pytest.importorskip("anndata")
    cells(tmp_path / "a.h5ad")
    found = data.load(tmp_path / "a.h5ad", x="counts", label="kind", batch="site")
    assert found.kind == "counts" and found.coords["x"] == list("vwxyz")
    assert found.coords["batch"] == ["north", "south"]
    np.testing.assert_array_equal(rows_of(found), COUNTS)
    np.testing.assert_array_equal(rows_of(found, "batch"), np.arange(40) % 2)
    assert any("of obs quality left out" in note for note in found.notes)
    logs = data.load(tmp_path / "a.h5ad", label="kind")
    np.testing.assert_allclose(rows_of(logs), np.log1p(COUNTS), rtol=1e-6)
    assert any("not taken: layers counts (x=...)" in note for note in logs.notes)
    with pytest.raises(UsageError, match="x=raw: there is X, and the layers counts"):
        data.load(tmp_path / "a.h5ad", x="raw")
    with pytest.raises(UsageError, match="no column 'kin'.*'kind'"):
        data.load(tmp_path / "a.h5ad", label="kin")
    out = tmp_path / "run"
    ok("train", "counts", "--data", tmp_path / "a.h5ad", "--x", "counts", "--batch", "site", "--epochs", 1,
       "--out", out, *SMALL)  # fmt: skip
    told = ok("encode", out)
    assert pd.read_csv(told["table"]).iloc[:, 0].isin(NAMES).all()


@pytest.mark.parametrize("suffix", [".parquet", ".mat", ".h5ad"])
def test_a_damaged_file_is_one_line(tmp_path, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(b"nonsense")
    assert f"bad{suffix} cannot be read" in refused(1, "data", "info", tmp_path / f"bad{suffix}")


def test_a_field_whose_name_ends_like_a_split_is_a_field():
    rows = {"x": COUNTS, "split24345_train": np.arange(40) % 2, "batch": np.zeros(40, int)}
    found = data.of(rows, valid=4, test=4)
    assert set(found.fields) == set(rows) and found.num_rows("train") == 32
    with pytest.raises(DataError, match="y name no split"):
        data.of({"x_train": COUNTS, "y": np.zeros(40, int)})
