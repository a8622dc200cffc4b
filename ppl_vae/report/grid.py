"""Many small images as one."""

import math

import numpy as np
from PIL import Image

from ppl_vae.errors import DataError, UsageError

GAP = 1
BACKGROUND = 0.5


def image_grid(x, columns: int | None = None) -> Image.Image:
    """Lay images out in rows, the first at the top left, one pixel apart.

    Parameters
    ----------
    x : array [N, C, H, W] or [N, H, W]
        Values in [0, 1] (outside of it they are clipped), one or three channels.
    columns : int, optional
        Images per row; as many as rows if left out.

    Returns
    -------
    PIL.Image.Image
        Grey ("L") or colour ("RGB"); `columns * (W + 1) - 1` wide. Empty places are grey.

    Raises
    ------
    DataError
        No images, another shape, or values that are not finite or bytes that were not scaled.
    """
    images = _as_images(x)
    number, channels, height, width = images.shape
    columns = _columns(number, columns)
    rows = math.ceil(number / columns)
    canvas = np.full((channels, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), BACKGROUND)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        canvas[:, top : top + height, left : left + width] = image
    pixels = np.round(canvas * 255).astype(np.uint8)
    return Image.fromarray(pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _columns(number: int, columns: int | None) -> int:
    if columns is None:
        return math.ceil(math.sqrt(number))
    if columns < 1:
        raise UsageError(f"a grid of {columns} columns is impossible: give 1 or more")
    return min(columns, number)


def _as_images(x) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f"images have the shape {x.shape}: give [N, C, H, W] with 1 or 3 channels, or [N, H, W]"
        )
    if x.size == 0:
        raise DataError(f"there are no images to show (shape {x.shape}): give at least one")
    if x.dtype.kind in "iu" and x.max() > 1:
        raise DataError(f"images hold whole numbers up to {x.max()}: divide them, so that they lie in [0, 1]")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise DataError("images hold values that are not finite: look for the step where training diverged")
    return np.clip(x, 0.0, 1.0)
