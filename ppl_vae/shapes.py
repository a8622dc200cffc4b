"""Shapes of the arrays that networks are made for, the same on every backend."""

from collections.abc import Sequence

from ppl_vae.errors import DataError

Shape = int | Sequence[int]

# What a program does that keeps the axes in front of global latents, on each of its draws.
BY_WEIGHTS = (
    "with several draws in front a global latent has the axes [draws, 1, ...]: pick its entry of a class by "
    "weights, F.sum(F.one_hot(y, classes, a)[..., None] * a, -2), not by an index or a matrix product"
)


def as_shape(shape: Shape) -> tuple[int, ...]:
    """Return a size or a shape as a shape."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def other_shape(site: str, distribution: str, event: tuple[int, ...], row: tuple[int, ...]) -> str:
    """Say that data has another shape than the distribution that scores it."""
    return (
        f"site {site!r}: its {distribution} has shape {tuple(event)} per row, the data {tuple(row)}: "
        "make the network end in the data's shape"
    )


def vector_shape(shape: Shape) -> tuple[int]:
    """Return (D,); raises DataError for rows that are no vectors."""
    sizes = as_shape(shape)
    if len(sizes) != 1:
        raise DataError(f"rows of shape {sizes} are no vectors: give a table")
    return sizes


def image_shape(shape: Shape, multiple: int = 1) -> tuple[int, int, int]:
    """Return (C, H, W) of rows that are images whose height and width are multiples of a number; raises
    DataError for others.
    """
    sizes = as_shape(shape)
    if len(sizes) != 3:
        raise DataError(
            f"rows of shape {sizes} are no images [C, H, W]: give images, or choose other networks"
        )
    if any(size % multiple for size in sizes[1:]):
        raise DataError(f"images of {sizes[1]} x {sizes[2]}: crop or pad them to multiples of {multiple}")
    return sizes


def halved(size: int, times: int) -> int:
    """Return a size after `times` convolutions of stride 2 (rounded up)."""
    for _ in range(times):
        size = (size + 1) // 2
    return size
