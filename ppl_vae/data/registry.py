"""The named data sets: where each comes from, the hashes of its content, and how it is split."""

import difflib
from collections.abc import Sequence

from ppl_vae.data.sources import (
    MNIST_PARTS,
    Source,
    hold_out,
    read_cifar,
    read_digits,
    read_frey,
    read_mnist,
    read_static,
    split_cifar,
    split_given,
    split_random,
    unpack_cifar,
    unpack_static,
)
from ppl_vae.errors import UsageError

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FASHION = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


def _addresses(files, *bases) -> dict[str, tuple[str, ...]]:
    return {name: tuple(base + name for base in bases) for name in files}


def _idx(
    name: str, licence: str, content: Sequence[str], archives: Sequence[str], bases: Sequence[str], **more
) -> Source:
    """Four files like MNIST's: md5 of their content, and of the files as published at each base."""
    kinds = ("images-idx3", "labels-idx1")
    files = tuple(f"{prefix}-{kind}-ubyte.gz" for prefix in MNIST_PARTS.values() for kind in kinds)
    return Source(
        name,
        read_mnist,
        hold_out(name, 5000, "the 60000 training images", "the official 10000"),
        (1, 28, 28),
        70_000,
        licence,
        folder=name,
        files=files,
        md5=dict(zip(files, content, strict=True)),
        downloads=_addresses(files, *bases),
        archives=dict(zip(files, archives, strict=True)),
        **more,
    )


def _amat(split: str) -> str:
    return f"binarized_mnist_{split}.amat"


_CIFAR_MD5 = {
    "data_batch_1.bin.gz": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin.gz": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin.gz": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin.gz": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin.gz": "53f37980c15c3d472c316c40844f3f0d",
}
_STATIC_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_STATIC_MD5 = {  # of the text form
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}

SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits",
            read_digits,
            split_random,
            (1, 8, 8),
            1797,
            "CC BY 4.0 (UCI), with scikit-learn",
            levels=17,
        ),
        _idx(
            "mnist",
            "CC BY-SA 3.0",
            (
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            ),
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
        ),
        _idx(
            "fashion-mnist",
            "MIT",
            (
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            system=("/usr/share/datasets/fashion-mnist",),
            coords={"y": FASHION},
        ),
        Source(
            "cifar10",
            read_cifar,
            split_cifar,
            (3, 32, 32),
            50_000,
            "none stated (research)",
            folder="cifar10",
            files=tuple(_CIFAR_MD5),
            md5=_CIFAR_MD5,
            downloads=_addresses(("cifar-10-binary.tar.gz",), "https://www.cs.toronto.edu/~kriz/"),
            archives={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            unpack=unpack_cifar,
            coords={"y": CIFAR},
        ),
        Source(
            "frey-faces",
            read_frey,
            split_random,
            (1, 28, 20),
            1965,
            "none stated (research)",
            folder="frey_faces",
            files=("frey_rawface.mat",),
            md5={"ff": "687b39ec28b56c183474c235686975cf"},
            downloads=_addresses(("frey_rawface.mat",), "https://cs.nyu.edu/~roweis/data/"),
        ),
        Source(
            "static-mnist",
            read_static,
            split_given,
            (1, 28, 28),
            70_000,
            "from MNIST (CC BY-SA 3.0)",
            levels=2,
            folder="binarized_mnist",
            files=("binarized_mnist.npz",),
            md5={f"{split}_data": digest for split, digest in _STATIC_MD5.items()},
            downloads=_addresses(map(_amat, _STATIC_MD5), _STATIC_URL),
            archives={_amat(split): digest for split, digest in _STATIC_MD5.items()},
            unpack=unpack_static,
        ),
    )
}


def named(name: str) -> Source:
    """The source of a named data set; `UsageError` with the known names if there is none."""
    if name not in SOURCES:
        close = difflib.get_close_matches(str(name).lower().replace("_", "-"), SOURCES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(
            f"unknown data {str(name)!r}{hint}: no data set has this name and no such path exists; "
            f"names are {', '.join(SOURCES)}"
        )
    return SOURCES[name]
