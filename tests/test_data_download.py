import gzip
import io
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from fake_data import fake_mnist, make_cifar, make_static, md5, no_real_places  # noqa: F401

from ppl_vae import data
from ppl_vae.data import registry
from ppl_vae.errors import DataError

REGISTERED = list(registry.SOURCES.values())


@pytest.fixture(name="server")
def fake_server(tmp_path):
    """A web server on this machine over `tmp_path/web`: (folder, address)."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()
        thread.join()


def serve(monkeypatch, name, addresses, archives=None):
    source = replace(registry.SOURCES[name], downloads=addresses, archives=archives or {})
    monkeypatch.setitem(registry.SOURCES, name, source)


def test_download_tries_mirrors_and_keeps_what_is_verified(mnist, server, monkeypatch, tmp_path):
    web, address = server
    for mirror in ("bad", "good"):
        (web / mirror).mkdir()
        for path in mnist[0].iterdir():
            (web / mirror / path.name).write_bytes(path.read_bytes())
    (web / "bad" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other content"))
    files = registry.SOURCES["mnist"].files
    wanted = data.load("mnist", valid=4).sha256
    monkeypatch.delenv("PPL_VAE_DATA")
    serve(monkeypatch, "mnist", {name: (address + "bad/" + name,) for name in files})
    with pytest.raises(DataError, match=r"mnist could not be downloaded \(.*t10k-labels.*PPL_VAE_DATA"):
        data.load("mnist", valid=4)
    published = {path.name: md5(path.read_bytes()) for path in (web / "good").iterdir()}
    serve(monkeypatch, "mnist", {name: (address + "bad/" + name,) for name in files}, published)
    with pytest.raises(DataError, match=r"bad/t10k-labels-idx1-ubyte\.gz: not the published file\)"):
        data.load("mnist", valid=4)
    cache = tmp_path / "cache" / "ppl_vae" / "mnist"
    assert list(cache.iterdir()) == []

    serve(
        monkeypatch,
        "mnist",
        {
            name: (address + "gone/" + name, address + "bad/" + name, address + "good/" + name)
            for name in files
        },
        published,
    )
    assert data.load("mnist", valid=4).sha256 == wanted
    assert sorted(path.name for path in cache.iterdir()) == sorted(files)
    serve(monkeypatch, "mnist", {})
    assert data.fetch("mnist", offline=True)["folder"] == str(cache)


def test_download_goes_into_the_users_folder(mnist, server, monkeypatch, tmp_path):
    web, address = server
    for path in mnist[0].iterdir():
        (web / path.name).write_bytes(path.read_bytes())
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path / "own"))
    serve(monkeypatch, "mnist", {name: (address + name,) for name in registry.SOURCES["mnist"].files})
    fetched = data.fetch("mnist")
    assert fetched["folder"] == str(tmp_path / "own" / "mnist") and fetched["verified"] is True


def test_download_unpacks_cifar(server, monkeypatch, tmp_path):
    web, address = server
    records = make_cifar(monkeypatch)
    with tarfile.open(web / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for i, batch in enumerate(records, start=1):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/data_batch_{i}.bin")
            member.size = batch.nbytes
            tar.addfile(member, io.BytesIO(batch.tobytes()))
    serve(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": (address + "cifar-10-binary.tar.gz",)})
    assert np.array_equal(data.load("cifar10", valid=3).splits["test"]["y"], records[4][:, 0])
    kept = sorted(path.name for path in (tmp_path / "cache" / "ppl_vae" / "cifar10").iterdir())
    assert kept == [f"data_batch_{i}.bin" for i in range(1, 6)]


def test_damaged_archive_is_refused_by_name(server, monkeypatch, tmp_path):
    web, address = server
    make_cifar(monkeypatch)
    (web / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    serve(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": (address + "cifar-10-binary.tar.gz",)})
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        data.load("cifar10")
    serve(monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": (address + "gone.tar.gz",)})
    with pytest.raises(DataError, match=r"gone\.tar\.gz: 404\)"):
        data.load("cifar10")
    published = {"cifar-10-binary.tar.gz": md5(b"the archive")}
    serve(monkeypatch, "cifar10", {name: (address + name,) for name in published}, published)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: not the published file\)"):
        data.load("cifar10")


def test_download_packs_static_mnist(server, monkeypatch):
    web, address = server
    bits, texts = make_static(monkeypatch)
    names = {key: f"binarized_mnist_{key.removesuffix('_data')}.amat" for key in bits}
    for key, name in names.items():
        (web / name).write_bytes(texts[key])
    serve(monkeypatch, "static-mnist", {name: (address + name,) for name in names.values()})
    loaded = data.load("static-mnist")
    assert np.array_equal(loaded.splits["valid"]["x"].reshape(3, 784), bits["valid_data"])


def test_every_download_has_a_hash():
    for source in REGISTERED:
        assert bool(source.files) == bool(source.md5) == bool(source.downloads)
        assert all(len(digest) == 32 for digest in (*source.md5.values(), *source.archives.values()))
        assert set(source.archives) <= set(source.downloads)
        # Without a published hash there is one address, and the content decides.
        assert all(name in source.archives or len(urls) == 1 for name, urls in source.downloads.items())
        assert all(url.startswith("http") for urls in source.downloads.values() for url in urls)


def test_a_download_is_no_larger_than_what_is_published(mnist, server, monkeypatch):
    web, address = server
    name = registry.SOURCES["mnist"].files[0]
    (web / name).write_bytes(bytes(10**6))
    monkeypatch.delenv("PPL_VAE_DATA")
    serve(monkeypatch, "mnist", {name: (address + name,)})
    monkeypatch.setattr(type(registry.SOURCES["mnist"]), "largest", 10**5)
    with pytest.raises(DataError, match="images-idx3-ubyte.gz: larger than the published file"):
        data.load("mnist")


def test_a_packed_file_is_not_unpacked_beyond_what_it_can_hold(mnist, monkeypatch):
    name = registry.SOURCES["mnist"].files[0]
    (mnist[0] / name).write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr(type(registry.SOURCES["mnist"]), "largest", 10**5)
    with pytest.raises(DataError, match=f"{name} is too large: it is another file; remove it"):
        data.load("mnist")
