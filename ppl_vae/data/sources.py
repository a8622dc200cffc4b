"""The named data sets: where each comes from, how its content is checked and read, and how it is split."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_vae.data import readers, splits
from ppl_vae.errors import UsageError

MNIST_PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Source:
    """One named data set.

    Parameters
    ----------
    files : tuple of str
        What lies in the folder; `NAME.gz` may also lie there uncompressed as `NAME`.
    md5 : dict
        Hash of the *uncompressed* content of each file, or of each array in it.
    read : callable
        `read(folder, source) -> {split: fields}` with a `locate.Folder`; its content is already verified.
    split : callable
        `split(splits, valid, test, seed) -> (splits, rule)`.
    downloads : dict
        File to download -> its addresses, tried in this order. `unpack` makes `files` of them.
    system : tuple of str
        Folders where a package of the operating system installs it.
    """

    name: str
    read: Callable
    split: Callable
    shape: tuple[int, ...]
    num_rows: int
    licence: str
    kind: str = "image"
    levels: int = 256
    folder: str = ""
    files: tuple[str, ...] = ()
    md5: dict[str, str] = field(default_factory=dict)
    downloads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unpack: Callable | None = None
    system: tuple[str, ...] = ()
    coords: dict[str, list] = field(default_factory=dict)


def _read_digits(folder, source):
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"all": {"x": digits.images.astype(np.uint8)[:, None], "y": digits.target.astype(np.int64)}}


def _read_mnist(folder, source):
    found = {}
    for split, prefix in MNIST_PARTS.items():
        images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        found[split] = {
            "x": readers.idx(folder.payload(images), images)[:, None],
            "y": readers.idx(folder.payload(labels), labels).astype(np.int64),
        }
    return found


def _read_cifar(folder, source):
    batches = [readers.cifar(folder.payload(name), name) for name in source.files]
    return {f"batch {i}": {"x": x, "y": y} for i, (x, y) in enumerate(batches, start=1)}


def _read_frey(folder, source):
    faces = readers.mat(folder.payload(source.files[0], check=False), "ff", source.files[0])
    faces = np.ascontiguousarray(faces.T)
    folder.check("ff", faces.tobytes())
    return {"all": {"x": faces.reshape(-1, 1, 28, 20)}}


def _read_static(folder, source):
    arrays, found = readers.npz(folder.payload(source.files[0], check=False), source.files[0]), {}
    for split in ("train", "valid", "test"):
        bits = folder.array(arrays, f"{split}_data")
        folder.check(f"{split}_data", readers.bits_to_text(bits))
        found[split] = {"x": np.ascontiguousarray(bits).reshape(-1, 1, 28, 28)}
    return found


def _unpack_cifar(folder, source):
    """Take the batches out of the archive, without trusting any path in it."""
    import tarfile

    (archive,) = source.downloads
    with tarfile.open(folder / archive) as tar:
        for name in source.files:
            plain = name.removesuffix(".gz")
            (folder / plain).write_bytes(tar.extractfile(f"cifar-10-batches-bin/{plain}").read())
    (folder / archive).unlink()


def _unpack_static(folder, source):
    """Put the three text files into one .npz."""
    columns, arrays = int(np.prod(source.shape)), {}
    for name in source.downloads:
        split = name.removeprefix("binarized_mnist_").removesuffix(".amat")
        arrays[f"{split}_data"] = readers.bits_from_text((folder / name).read_bytes(), columns, name)
        (folder / name).unlink()
    np.savez_compressed(folder / source.files[0], **arrays)


def _refuse_test(source_name, test, seed):
    if test is not None or seed != 0:
        raise UsageError(f"{source_name} has its own test set: leave out test and split_seed")


def _hold_out(name: str, default: int, pool: str, test_rule: str):
    def split(found, valid, test, seed):
        _refuse_test(name, test, seed)
        n = splits.count(found["train"])
        size = splits.amount(valid, n, default, "valid")
        rule = f"train: first {n - size} of {pool}; valid: last {size} of {pool}; test: {test_rule}"
        return {**splits.hold_out_last(found["train"], size), "test": found["test"]}, rule

    return split


def _split_cifar(found, valid, test, seed):
    parts = [found[f"batch {i}"] for i in range(1, 5)]
    train = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rule = _hold_out("cifar10", 2000, "batches 1-4", "batch 5 (not the official test batch)")
    return rule({"train": train, "test": found["batch 5"]}, valid, test, seed)


def _split_random(found, valid, test, seed):
    return splits.at_random(found["all"], valid, test, seed)


def _split_given(found, valid, test, seed):
    if valid is not None:
        raise UsageError("this data set has its own validation set: leave out valid")
    _refuse_test("this data set", test, seed)
    return found, "as given by its authors"


def _idx_files():
    return tuple(f"{p}-{kind}-ubyte.gz" for p in MNIST_PARTS.values() for kind in ("images-idx3", "labels-idx1"))


def _addresses(files, *bases) -> dict[str, tuple[str, ...]]:
    return {name: tuple(base + name for base in bases) for name in files}


def _md5(names, *digests) -> dict[str, str]:
    return dict(zip(names, digests, strict=True))


_CIFAR_FILES = tuple(f"data_batch_{i}.bin.gz" for i in range(1, 6))
_STATIC_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_STATIC_SPLITS = ("train", "valid", "test")
_IDX: dict[str, Any] = {"read": _read_mnist, "shape": (1, 28, 28), "num_rows": 70_000, "files": _idx_files()}

SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits", _read_digits, _split_random, (1, 8, 8), 1797, "CC BY 4.0 (UCI), with scikit-learn",
            levels=17,
        ),
        Source(
            "mnist", **_IDX, licence="CC BY-SA 3.0", folder="mnist",
            split=_hold_out("mnist", 5000, "the 60000 training images", "the official 10000"),
            md5=_md5(
                _idx_files(),
                "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637",
            ),
            downloads=_addresses(
                _idx_files(),
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
        ),
        Source(
            "fashion-mnist", **_IDX, licence="MIT", folder="fashion-mnist",
            split=_hold_out("fashion-mnist", 5000, "the 60000 training images", "the official 10000"),
            md5=_md5(
                _idx_files(),
                "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965",
            ),
            downloads=_addresses(
                _idx_files(),
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            system=("/usr/share/datasets/fashion-mnist",),
            coords={
                "y": ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                      "Ankle boot"]
            },
        ),
        Source(
            "cifar10", _read_cifar, _split_cifar, (3, 32, 32), 50_000, "none stated (research)",
            folder="cifar10", files=_CIFAR_FILES,
            md5=_md5(
                _CIFAR_FILES,
                "5dd7e06a14cb22eb9f671a540d1b7c25", "5ea93a67294ea407fff1d09f752e9692",
                "942cd6a4bcdd0dd3c604fbe906cb4421", "ae636b3ba5c66a11e91e8cb52e771fcb",
                "53f37980c15c3d472c316c40844f3f0d",
            ),
            downloads=_addresses(("cifar-10-binary.tar.gz",), "https://www.cs.toronto.edu/~kriz/"),
            unpack=_unpack_cifar,
            coords={
                "y": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
            },
        ),
        Source(
            "frey-faces", _read_frey, _split_random, (1, 28, 20), 1965, "none stated (research)",
            folder="frey_faces", files=("frey_rawface.mat",), md5={"ff": "687b39ec28b56c183474c235686975cf"},
            downloads=_addresses(("frey_rawface.mat",), "https://cs.nyu.edu/~roweis/data/"),
        ),
        Source(
            "static-mnist", _read_static, _split_given, (1, 28, 28), 70_000, "from MNIST (CC BY-SA 3.0)",
            levels=2, folder="binarized_mnist", files=("binarized_mnist.npz",),
            md5=_md5(
                [f"{split}_data" for split in _STATIC_SPLITS],
                "db28b1a6ae0fe70cbd3da91acf46e477", "bf37822a04e94123630de6a7dfd9c9ef",
                "14e41ae11040adba6ab8cb291eda0dd8",
            ),
            downloads=_addresses([f"binarized_mnist_{split}.amat" for split in _STATIC_SPLITS], _STATIC_URL),
            unpack=_unpack_static,
        ),
    )
}
