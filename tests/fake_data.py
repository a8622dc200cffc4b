"""Tiny files in the formats of the named data sets, for the tests of data."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest

from ppl_vae.data import registry


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(">u1").tobytes()


def digits28(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_real_places(monkeypatch, tmp_path):
    """Nothing of this machine's data or cache, and no network beyond it."""
    monkeypatch.delenv("PPL_VAE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name, source in list(registry.SOURCES.items()):
        monkeypatch.setitem(registry.SOURCES, name, replace(source, system=(), downloads={}, archives={}))


@pytest.fixture(name="mnist")
def fake_mnist(monkeypatch, tmp_path):
    """Twenty training and six test images in MNIST's format: (folder, arrays)."""
    train, test = digits28(20, 1), digits28(6, 2)
    contents = dict(zip(registry.SOURCES["mnist"].files, map(idx, (*train, *test)), strict=True))
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(gzip.compress(content))
    hashes = {name: md5(content) for name, content in contents.items()}
    monkeypatch.setitem(registry.SOURCES, "mnist", replace(registry.SOURCES["mnist"], md5=hashes))
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path / "data"))
    return folder, train, test


def make_cifar(monkeypatch):
    rng = np.random.default_rng(3)
    records = [rng.integers(0, 10, (4, 3073), dtype=np.uint8) for _ in range(5)]
    source = registry.SOURCES["cifar10"]
    hashes = {name: md5(batch.tobytes()) for name, batch in zip(source.files, records, strict=True)}
    monkeypatch.setitem(registry.SOURCES, "cifar10", replace(source, md5=hashes))
    return records


def make_static(monkeypatch):
    rng = np.random.default_rng(5)
    bits = {
        f"{s}_data": rng.integers(0, 2, (n, 784), dtype=np.uint8)
        for s, n in zip(("train", "valid", "test"), (5, 3, 2), strict=True)
    }
    texts = {
        key: "".join(" ".join(map(str, row)) + "\n" for row in value).encode() for key, value in bits.items()
    }
    source = replace(registry.SOURCES["static-mnist"], md5={key: md5(text) for key, text in texts.items()})
    monkeypatch.setitem(registry.SOURCES, "static-mnist", source)
    return bits, texts
