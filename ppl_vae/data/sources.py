"""What a named data set is, and how each kind is read and split; the list itself is in `registry`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ppl_vae.data import readers, splits
from ppl_vae.errors import DataError, UsageError

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
    archives : dict
        md5 of each file to download, where it is published; pooch checks it. What a user's folder holds may
        be compressed anew: there the content counts.
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
    archives: dict[str, str] = field(default_factory=dict)
    unpack: Callable | None = None
    system: tuple[str, ...] = ()
    coords: dict[str, list] = field(default_factory=dict)

    @property
    def largest(self) -> int:
        """Bytes that none of its files exceeds, packed or not: eight for each number, and some more."""
        return 8 * self.num_rows * int(np.prod(self.shape)) + 2**20


def read_digits(folder, source):
    """scikit-learn's digits: `all` with x uint8 `[1797, 1, 8, 8]` of 17 levels and y."""
    # The file alone: to import the package takes longer than to train a small model.
    (home,) = find_spec("sklearn").submodule_search_locations
    table = np.loadtxt(Path(home, "datasets", "data", "digits.csv.gz"), np.uint8, delimiter=",")
    pixels = np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, 8, 8)
    return {"all": {"x": pixels, "y": table[:, -1].astype(np.int64)}}


def read_mnist(folder, source):
    """The four IDX files of MNIST and its likes: `train` and `test` with x uint8 `[N, 1, 28, 28]` and y."""
    by_split = {}
    for split, prefix in MNIST_PARTS.items():
        images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        by_split[split] = {
            "x": readers.idx(folder.payload(images), images)[:, None],
            "y": readers.idx(folder.payload(labels), labels).astype(np.int64),
        }
    return by_split


def read_cifar(folder, source):
    """CIFAR-10's training batches: `batch 1` ... `batch 5` with x uint8 `[10000, 3, 32, 32]` and y."""
    batches = [readers.cifar(folder.payload(name), name) for name in source.files]
    return {f"batch {i}": {"x": x, "y": y} for i, (x, y) in enumerate(batches, start=1)}


def read_frey(folder, source):
    """Frey faces: `all` with x uint8 `[1965, 1, 28, 20]`; the hash is that of the pixels."""
    with folder.damage_named(source.files[0]):
        faces = readers.mat(folder.payload(source.files[0], check=False), "ff", source.files[0])
    faces = np.ascontiguousarray(faces.T)
    folder.check("ff", faces.tobytes())
    return {"all": {"x": faces.reshape(-1, 1, 28, 20)}}


def read_static(folder, source):
    """Larochelle's binarized MNIST: x of bits; the hash is that of the text form that he published."""
    with folder.damage_named(source.files[0]):
        arrays = readers.npz(folder.payload(source.files[0], check=False), source.files[0])
    by_split = {}
    for split in ("train", "valid", "test"):
        bits = folder.array(arrays, f"{split}_data")
        folder.check(f"{split}_data", readers.bits_to_text(bits))
        by_split[split] = {"x": np.ascontiguousarray(bits).reshape(-1, 1, 28, 28)}
    return by_split


def unpack_cifar(folder, source):
    """Take the batches out of the archive, without trusting any path in it."""
    import tarfile

    (archive,) = source.downloads
    try:
        with tarfile.open(folder / archive) as tar:
            for name in source.files:
                unpacked = name.removesuffix(".gz")
                (folder / unpacked).write_bytes(tar.extractfile(f"cifar-10-batches-bin/{unpacked}").read())
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise DataError(f"{archive} is damaged ({error})") from error
    (folder / archive).unlink()


def unpack_static(folder, source):
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


def hold_out(name: str, default: int, pool: str, test_rule: str):
    """The rule that the last `default` training rows are the validation set; the test set is given."""

    def split(arrays, valid, test, seed):
        _refuse_test(name, test, seed)
        n = splits.count(arrays["train"])
        size = splits.amount(valid, n, default, "valid")
        rule = f"train: first {n - size} of {pool}; valid: last {size} of {pool}; test: {test_rule}"
        return {**splits.hold_out_last(arrays["train"], size), "test": arrays["test"]}, rule

    return split


def split_cifar(arrays, valid, test, seed):
    """Batches 1-4 to train on, with the end of batch 4 as validation set, and batch 5 as test set."""
    parts = [arrays[f"batch {i}"] for i in range(1, 5)]
    train = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    rule = hold_out("cifar10", 2000, "batches 1-4", "batch 5 (not the official test batch)")
    return rule({"train": train, "test": arrays["batch 5"]}, valid, test, seed)


def split_random(arrays, valid, test, seed):
    """Seeded random splits, 80/10/10 by default."""
    return splits.at_random(arrays["all"], valid, test, seed)


def split_given(arrays, valid, test, seed):
    """The splits of the authors."""
    if valid is not None:
        raise UsageError("this data set has its own validation set: leave out valid")
    _refuse_test("this data set", test, seed)
    return arrays, "as given by its authors"
