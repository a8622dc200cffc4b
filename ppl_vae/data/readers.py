"""Readers of the formats of the named data sets: bytes in, arrays out."""

import io
import struct

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.reading import refuse_beyond_memory

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(payload: bytes, name: str = "IDX file") -> np.ndarray:
    """Read an IDX file (LeCun's MNIST format), uncompressed.

    Raises
    ------
    DataError
        If the header or the length is wrong.
    """
    if len(payload) < 4 or payload[:2] != b"\0\0" or payload[2] not in _IDX_TYPES:
        raise DataError(f"{name} is not an IDX file: its first bytes are {payload[:4].hex(' ')}")
    dtype, axes = np.dtype(_IDX_TYPES[payload[2]]), payload[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", payload[4:start]) if len(payload) >= start else (-1,)
    if len(payload) - start != np.prod(shape, dtype=np.int64) * dtype.itemsize:
        raise DataError(f"{name} is cut off or too long: {len(payload)} bytes for an array of shape {shape}")
    return np.frombuffer(payload, dtype, offset=start).reshape(shape)


def cifar(payload: bytes, name: str = "CIFAR batch") -> tuple[np.ndarray, np.ndarray]:
    """Read a batch of CIFAR-10's binary version.

    Returns
    -------
    (images, labels)
        uint8 `[N, 3, 32, 32]` and int64 `[N]`.
    """
    if not payload or len(payload) % 3073:
        raise DataError(f"{name} is cut off: {len(payload)} bytes are no multiple of 3,073")
    records = np.frombuffer(payload, np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def bits_to_text(bits: np.ndarray) -> bytes:
    """The text form of 0/1 rows: digits with one space between them, one row a line."""
    text = np.full((len(bits), 2 * bits.shape[1]), ord(" "), np.uint8)
    text[:, ::2] = bits + ord("0")
    text[:, -1] = ord("\n")
    return text.tobytes()


def bits_from_text(text: bytes, columns: int, name: str = "text file") -> np.ndarray:
    """Inverse of `bits_to_text`: uint8 `[N, columns]`."""
    if not text or len(text) % (2 * columns):
        raise DataError(f"{name} does not hold rows of {columns} bits")
    return np.frombuffer(text, np.uint8).reshape(-1, 2 * columns)[:, ::2] - ord("0")


def mat(payload: bytes, variable: str, name: str = "MATLAB file") -> np.ndarray:
    """Read one variable of a MATLAB 5 file."""
    from scipy.io import loadmat

    try:
        return loadmat(io.BytesIO(payload), variable_names=[variable])[variable]
    except Exception as error:
        raise DataError(f"{name} is no MATLAB file with a variable {variable!r} ({error})") from error


def npz(payload: bytes, name: str = "npz file") -> dict[str, np.ndarray]:
    """Read all arrays of an .npz; pickled objects are refused."""
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            refuse_beyond_memory(sum(part.file_size for part in arrays.zip.infolist()), name)
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:
        raise DataError(f"{name} cannot be read as .npz of arrays ({error})") from error
