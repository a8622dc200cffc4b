"""Images [N, C, H, W]: grids, and rows above their reconstructions."""

import io
import math

import numpy as np
from PIL import Image

from ppl_vae.checks import counted
from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags
from ppl_vae.report.contents import Contents, Row
from ppl_vae.report.grid import image_grid

MOST = 64
_PAIRS = 16
_COLUMNS = 8
_WIDTH = 560
_SIDE = 128
_EDGE = 0.5


def samples(x, data, about: Contents) -> str:
    """A grid of the first samples."""
    shown, told = _shown(x[:MOST], about)
    columns = math.ceil(math.sqrt(len(shown)))
    alt = f"Grid of {len(shown)} samples, {columns} in a row"
    return tags.figure(
        _picture(image_grid(shown, columns), alt, _WIDTH), f"{counted(len(shown), 'sample')}{told}."
    )


def reconstructions(x, data, about: Contents) -> str:
    """Originals, each above its reconstruction."""
    (made, told), (originals, _) = _shown(x[:_PAIRS], about), _shown(data[:_PAIRS], about)
    count, columns = len(made), min(_COLUMNS, len(made))
    alt = f"Grid of {count} originals, each above its reconstruction, {columns} in a row"
    words = f"{counted(count, 'row')}, each above its reconstruction{told}."
    image = _cut(image_grid(stacked(originals, made), columns))
    return tags.figure(_picture(image, alt, _WIDTH), words)


def pair(row: Row, about: Contents) -> str:
    """An original above its reconstruction."""
    both = [one[None] for one in (row.original, row.reconstruction) if one is not None]
    if not both:
        return ""
    shown = [_shown(one, about)[0] for one in both]
    image = image_grid(
        stacked(*shown) if len(shown) == 2 else np.pad(shown[0], ((0, 0), (0, 0), (0, 2), (0, 0)))
    )
    return _picture(_cut(image), f"Row {row.number}, above its reconstruction", 120)


def stacked(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Images above others, with a line between them and one under them."""
    if above.shape != below.shape:
        raise DataError(f"originals {above.shape} and reconstructions {below.shape} have different shapes")
    line = np.full((*above.shape[:2], 1, above.shape[3]), _EDGE)
    return np.concatenate([above, line, below, line, line], 2)


def _cut(image: Image.Image) -> Image.Image:
    """Leave out the lines under the last images."""
    return image.crop((0, 0, image.width, image.height - 2))


def _shown(x, about: Contents) -> tuple[np.ndarray, str]:
    """Images as a screen shows them, and what was done to them, in words."""
    x, told = np.asarray(x, np.float64), []
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.size == 0:
        raise DataError(f"images have the shape {x.shape}: give [N, C, H, W] with at least one row")
    if x.shape[1] == 4:
        x, told = x[:, :3], [*told, "without their alpha channel"]
    elif x.shape[1] not in (1, 3):
        x, told = x.mean(1, keepdims=True), [*told, f"the mean of {x.shape[1]} channels"]
    low, high = plots.limits(np.zeros(1) if about.originals is None else about.originals)
    if low < 0 or high > 1:
        x, told = (x - low) / (high - low or 1), [*told, f"{low:.3g} is black and {high:.3g} white"]
    step = -(-max(x.shape[2:]) // _SIDE)
    if step > 1:
        x, told = x[:, :, ::step, ::step], [*told, f"one pixel in {step} along each side"]
    gaps = np.isnan(x) if about.originals is not None and np.isnan(about.originals).any() else False
    return np.where(gaps, _EDGE, x), "".join(f"; {words}" for words in told)


def _picture(image: Image.Image, alt: str, most: int) -> str:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return tags.picture(out.getvalue(), alt, image.width * max(1, most // image.width))
