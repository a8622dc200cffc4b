import gzip
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fake_data import fake_mnist, idx, make_cifar, make_static, md5, no_real_places  # noqa: F401

from ppl_vae import data
from ppl_vae.data import readers, registry
from ppl_vae.errors import DataError, UsageError

# ---- named data sets


def test_digits_ship_with_a_dependency():
    from sklearn.datasets import load_digits

    digits = data.load("digits", offline=True)
    assert (digits.kind, digits.levels, digits.shape("x"), digits.shape("y")) == ("image", 17, (1, 8, 8), ())
    assert [digits.num_rows(split) for split in ("train", "valid", "test")] == [1437, 180, 180]
    order = np.random.default_rng(0).permutation(1797)
    held_out = np.sort(order[1437:1617])
    raw = digits.raw("valid")
    expected = (load_digits().images[held_out, None] / 16).astype(np.float32)
    assert raw["x"].dtype == np.float32 and np.array_equal(raw["x"], expected)
    assert raw["y"].dtype == np.int64 and np.array_equal(raw["y"], load_digits().target[held_out])


def test_mnist_layout_split_and_values(mnist):
    folder, train, test = mnist
    loaded = data.load("mnist", valid=4)
    assert [loaded.num_rows(split) for split in ("train", "valid", "test")] == [16, 4, 6]
    assert np.array_equal(loaded.splits["valid"]["x"][:, 0], train[0][-4:])
    assert np.array_equal(loaded.raw("test")["x"][:, 0], test[0] / np.float32(255))
    assert np.array_equal(loaded.raw("train")["y"], train[1][:16])
    assert "first 16" in loaded.split_rule and "last 4" in loaded.split_rule
    assert loaded.source == str(folder) and loaded.licence == "CC BY-SA 3.0"
    json.dumps(loaded.describe())


def test_mnist_without_validation_set(mnist):
    loaded = data.load("mnist", valid=0)
    assert list(loaded.splits) == ["train", "test"] and loaded.num_rows("valid") == 0
    with pytest.raises(UsageError, match="no split 'valid'"):
        loaded.rows("valid")


def test_uncompressed_files_serve_as_well(mnist):
    folder = mnist[0]
    wanted = data.load("mnist", valid=4).sha256
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert data.load("mnist", valid=4).sha256 == wanted


@pytest.mark.parametrize("damage", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b + b"\0"])
def test_wrong_content_is_refused_by_name(mnist, damage):
    path = mnist[0] / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(damage(gzip.decompress(path.read_bytes()))))
    for use in (data.load, data.fetch):
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz has the wrong content \(md5 "):
            use("mnist")


def test_cut_off_gzip_is_refused_by_name(mnist):
    path = mnist[0] / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
        data.load("mnist", valid=4)


def test_offline_names_variable_and_missing_file(mnist, monkeypatch):
    (mnist[0] / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist/t10k-images-idx3-ubyte\.gz not found.*offline.*PPL_VAE_DATA"):
        data.load("mnist", offline=True)
    monkeypatch.setenv("PPL_VAE_DATA", str(mnist[0] / "nowhere"))
    with pytest.raises(DataError, match=r"PPL_VAE_DATA=.*nowhere is not a folder"):
        data.load("mnist", offline=True)
    assert data.load("digits").num_rows("train") == 1437


def test_options_that_named_data_refuses(mnist):
    for options, word in [
        ({"test": 3}, "test set"),
        ({"levels": 2}, "levels"),
        ({"valid": 20}, "leaves nothing"),
        ({"valid": -1}, "valid=-1"),
        ({"valid": 2.5}, "whole number"),
        ({"binarize": "random"}, "unknown binarize 'random'"),
    ]:
        with pytest.raises(UsageError, match=word):
            data.load("mnist", **{"valid": 4, **options})


@pytest.mark.parametrize(
    ("name", "hint"), [("mnits", "did you mean mnist"), ("frey_faces", "frey-faces"), ("", "")]
)
def test_unknown_name_lists_the_names(name, hint):
    with pytest.raises(UsageError, match=rf"{hint}.*no such path exists.*digits, mnist, fashion-mnist"):
        data.load(name)
    with pytest.raises(UsageError, match="unknown data"):
        data.fetch(name)


def test_cifar_splits(monkeypatch, tmp_path):
    records = make_cifar(monkeypatch)
    (tmp_path / "cifar10").mkdir()
    for name, batch in zip(registry.SOURCES["cifar10"].files, records, strict=True):
        (tmp_path / "cifar10" / name).write_bytes(gzip.compress(batch.tobytes()))
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    loaded = data.load("cifar10", valid=3)
    assert [loaded.num_rows(split) for split in ("train", "valid", "test")] == [13, 3, 4]
    assert np.array_equal(loaded.splits["valid"]["x"], records[3][1:, 1:].reshape(3, 3, 32, 32))
    assert np.array_equal(loaded.splits["test"]["y"], records[4][:, 0])
    assert "batch 5 (not the official test batch)" in loaded.split_rule
    assert loaded.coords["y"][9] == "truck"


def test_frey_faces(monkeypatch, tmp_path):
    from scipy.io import savemat

    faces = np.random.default_rng(4).integers(0, 256, (30, 560), dtype=np.uint8)
    (tmp_path / "frey_faces").mkdir()
    savemat(tmp_path / "frey_faces" / "frey_rawface.mat", {"ff": faces.T})
    source = replace(registry.SOURCES["frey-faces"], md5={"ff": md5(faces.tobytes())})
    monkeypatch.setitem(registry.SOURCES, "frey-faces", source)
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    loaded = data.load("frey-faces", split_seed=1)
    order = np.random.default_rng(1).permutation(30)
    for split, chosen in [("train", order[:24]), ("valid", order[24:27]), ("test", order[27:])]:
        assert np.array_equal(loaded.splits[split]["x"], faces[np.sort(chosen)].reshape(-1, 1, 28, 20))
    savemat(tmp_path / "frey_faces" / "frey_rawface.mat", {"ff": faces.T ^ 1})
    with pytest.raises(DataError, match=r"ff in .*frey_rawface\.mat has the wrong content"):
        data.load("frey-faces")


def test_static_mnist(monkeypatch, tmp_path):
    bits, _ = make_static(monkeypatch)
    (tmp_path / "binarized_mnist").mkdir()
    np.savez_compressed(tmp_path / "binarized_mnist" / "binarized_mnist.npz", **bits)
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    loaded = data.load("static-mnist", binarize="static")
    assert loaded.levels == 2 and loaded.split_rule == "as given by its authors"
    assert np.array_equal(loaded.rows("test")["x"].reshape(2, 784), bits["test_data"])
    with pytest.raises(UsageError, match="its own validation set"):
        data.load("static-mnist", valid=1)
    bits["valid_data"][0, 0] ^= 1
    np.savez_compressed(tmp_path / "binarized_mnist" / "binarized_mnist.npz", **bits)
    with pytest.raises(DataError, match=r"valid_data in .* has the wrong content"):
        data.load("static-mnist")


def test_bits_and_text_are_inverse():
    bits = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    assert readers.bits_to_text(bits) == b"0 1 1\n1 0 0\n"
    assert np.array_equal(readers.bits_from_text(b"0 1 1\n1 0 0\n", 3), bits)


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"\x1f\x8b\x08\x00", "no|not an IDX"),
        (idx(np.zeros((2, 3)))[:-1], "cut off"),
        (b"\0\0\x08\x03", "cut off"),
    ],
)
def test_idx_refuses_what_it_is_not(payload, word):
    with pytest.raises(DataError, match=word):
        readers.idx(payload, "a file")


def test_catalogue_says_where(mnist):
    rows = {row["name"]: row for row in data.catalogue()}
    assert list(rows) == ["digits", "mnist", "fashion-mnist", "cifar10", "frey-faces", "static-mnist"]
    assert rows["digits"]["where"] == "built in" and rows["cifar10"]["where"] == "download"
    assert rows["mnist"]["where"] == str(mnist[0]) and rows["mnist"]["shape"] == [1, 28, 28]
    json.dumps(list(rows.values()))


def test_package_of_the_operating_system_is_found(mnist, monkeypatch):
    source = replace(registry.SOURCES["mnist"], system=(str(mnist[0]),))
    monkeypatch.setitem(registry.SOURCES, "mnist", source)
    monkeypatch.delenv("PPL_VAE_DATA")
    assert data.load("mnist", valid=4, offline=True).source == str(mnist[0])


# ---- binarization


def test_binarized_rows_are_drawn_once_and_stated():
    x = np.tile(np.array([0, 0.25, 1], np.float32), (4000, 1))
    made = data.of({"x_train": x, "x_test": x}, binarize="dynamic", valid=0)
    bits = made.rows("test")["x"]
    assert bits.dtype == np.float32 and set(np.unique(bits)) == {0, 1}
    assert np.array_equal(bits, made.rows("test")["x"])
    assert not np.array_equal(bits, made.rows("test", seed=1)["x"])
    assert not np.array_equal(bits, made.rows("train")["x"])
    assert bits[:, 0].sum() == 0 and bits[:, 2].sum() == 4000
    assert abs(bits[:, 1].mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    expected = np.random.default_rng([0, 2]).random((4000, 3), dtype=np.float32) < x
    assert np.array_equal(bits, expected.astype(np.float32))
    assert np.array_equal(made.train_rows()["x"], x) and made.describe()["binarize"] == "dynamic"


def test_static_bits_do_not_depend_on_the_seed():
    made = data.load("digits", binarize="static")
    assert np.array_equal(made.rows("test")["x"], made.rows("test", seed=7)["x"])
    assert np.array_equal(made.train_rows()["x"], made.rows("train")["x"])
    assert np.array_equal(made.raw("train")["x"], data.load("digits").raw("train")["x"])


@pytest.mark.parametrize("x", [np.array([[0.5], [1.5], [0.1]]), np.array([[-0.1], [0.5], [0.1]])])
def test_binarize_needs_probabilities(x):
    with pytest.raises(UsageError, match=r"needs x in \[0, 1\]"):
        data.of(x, binarize="static")


# ---- batches


def test_order_is_a_function_of_seed_and_epoch():
    assert np.array_equal(data.order(3, 5, 100), np.random.default_rng([3, 5]).permutation(100))
    assert not np.array_equal(data.order(3, 5, 100), data.order(3, 6, 100))
    with pytest.raises(UsageError, match="negative"):
        data.order(-1, 0, 10)
    with pytest.raises(UsageError, match="at least 1 row"):
        data.order(0, 0, 0)


def test_batches_keep_the_odd_last_one():
    order = data.order(0, 0, 10)
    parts = list(data.batches(order, 4))
    assert [len(part) for part in parts] == [4, 4, 2] and np.array_equal(np.concatenate(parts), order)
    assert data.num_batches(10, 4) == 3 and data.num_batches(10, 5) == 2
    with pytest.raises(UsageError, match=r"batch_size=11 is larger than the data \(10 rows\).*at most 10"):
        data.batches(order, 11)
    with pytest.raises(UsageError, match="batch_size=0 is not positive"):
        data.batches(order, 0)


def test_import_brings_no_backend():
    code = (
        "import sys, ppl_vae.data as d; d.load('digits'); "
        "print([name for name in ('torch', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
