"""Draw the README's picture: the plane of a VAE with two latents, seen by the guide and by the decoder.

    PPL_VAE_DATA=~/data python benchmarks/picture.py --data mnist --out docs/plane.png

Trains for some minutes. Left: where the guide puts test rows. Right: what the decoder makes of points that
are even in probability under the prior.
"""

import argparse
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from scipy.stats import norm

from ppl_vae import ELBO, Run, data, fit, load

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent


def plane(run: Run, side: int) -> np.ndarray:
    """Return the decoder's images of a grid of side x side points, as one image."""
    steps = norm.ppf((np.arange(side) + 0.5) / side)
    points = np.stack(np.meshgrid(steps, steps[::-1]), -1).reshape(-1, 2)
    images = run.decode(points)["x"]
    height, width = images.shape[-2:]
    tiles = images.reshape(side, side, height, width)
    return tiles.swapaxes(1, 2).reshape(side * height, side * width)


def draw(run: Run, side: int = 14, rows: int = 4000) -> Figure:
    """Return the figure."""
    test = {name: values[:rows] for name, values in run.data.rows("test").items()}
    z = run.encode(test)["z"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    points = left.scatter(z[:, 0], z[:, 1], c=test["y"], cmap="tab10", vmin=-0.5, vmax=9.5, s=4, lw=0)
    bar = figure.colorbar(points, ax=left, ticks=range(10), label="label (never seen in training)")
    bar.outline.set_visible(False)
    left.set(xlabel="z 0", ylabel="z 1", aspect="equal", title="q(z | x) of test images")
    right.imshow(plane(run, side), cmap="gray_r", vmin=0, vmax=1)
    right.set(xticks=[], yticks=[], xlabel="z 0", ylabel="z 1", title="E[x | z] over the plane")
    return figure


def main() -> None:
    """Train, draw, and write the picture."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", default="mnist")
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "plane.png")
    given = options.parse_args()
    run = fit(
        load("vae", z_dim=2, hidden=(400, 400)),
        data.load(given.data, binarize="dynamic"),
        ELBO(),
        epochs=given.epochs,
    )
    drawn = BytesIO()
    draw(run).savefig(drawn, dpi=110)
    # Few colours: a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(48).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
