"""Images [N, C, H, W] in [0, 1]: grids."""

import io
import math

from ppl_vae.report import tags
from ppl_vae.report.grid import image_grid

MOST = 64
WIDTH = 400


def samples(x, data, summary) -> str:
    """A grid of the first samples."""
    return grid(x, "samples")


def reconstructions(x, data, summary) -> str:
    """Originals beside their reconstructions, in the same order."""
    return tags.side_by_side(grid(data, "originals"), grid(x, "reconstructions"))


def grid(x, name: str) -> str:
    """A figure with the first images of an array."""
    shown = x[:MOST]
    image = image_grid(shown)
    columns = math.ceil(math.sqrt(len(shown)))
    out = io.BytesIO()
    image.save(out, format="PNG")
    alt = f"Grid of {len(shown)} {name}, {columns} in a row"
    width = image.width * max(1, WIDTH // image.width)
    return tags.picture(out.getvalue(), alt, f"{name}: {len(shown)} of {len(x)}", width=width)
