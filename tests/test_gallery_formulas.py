"""What the gallery's programs declare, against their formulas in NumPy."""

import numpy as np
import pytest
from made import made
from scipy import stats
from small_programs import BACKENDS, batch, bound, observe

from ppl_vae import load

both = pytest.mark.parametrize("backend", BACKENDS)


def normal(outputs):
    loc, raw = np.split(outputs, 2, -1)
    return loc, np.logaddexp(0, raw) + 1e-4


@both
def test_the_ladder_guide_merges_the_way_up_with_the_way_down(backend):
    """arXiv:1602.02282, eq. 18-19, for every layer but the top one."""
    program, rows = bound("hvae", backend).eval(), batch("hvae")
    seen = observe(program, rows, seed=1)
    declared, h = program.program, rows["x"]

    def network(name, index):
        found = made("pyro", lambda nn: declared.networks(nn)[name][index])
        start = f"{name}.{index}."
        found.load({n.removeprefix(start): w for n, w in seen.weights.items() if n.startswith(start)})
        return found

    for layer in range(3):
        (h,) = network("up", layer)(h)
        weight, bias = (seen.weights[f"posterior.{layer}.out.{part}"] for part in ("weight", "bias"))
        loc, scale = normal(h @ weight.T + bias)
        if layer < 2:
            down_loc, down_scale = network("prior", layer)(seen.latents[f"z_{layer + 2}"].copy())
            precision = scale**-2 + down_scale**-2
            loc = (loc * scale**-2 + down_loc * down_scale**-2) / precision
            scale = precision**-0.5
        expected = stats.norm(loc, scale).logpdf(seen.latents[f"z_{layer + 1}"]).sum(-1)
        np.testing.assert_allclose(seen.log_q[f"z_{layer + 1}"], expected, rtol=1e-4, atol=1e-4)


@both
def test_a_latent_is_added_to_the_features_of_a_top_down_ladder(backend):
    program = load("topdown", x_shape=(1, 8, 8), latents=3, z_channels=2, width=4, inner=3)
    down = made(backend, lambda nn: program.networks(nn)["down"][0])
    weights = down.weights()
    # With a residual branch of zero the block is the identity.
    weights |= {name: 0 * value for name, value in weights.items() if name.startswith("block.widen")}
    down.load(weights)
    rng = np.random.default_rng(0)
    h, z = (rng.normal(size=(3, channels, 2, 2)).astype("f") for channels in (4, 2))
    kernel = weights["take.layer.weight"][:, :, 0, 0]
    taken = np.einsum("oi,nihw->nohw", kernel, z) + weights["take.layer.bias"][:, None, None]
    np.testing.assert_allclose(down(h, z)[0], h + taken, rtol=1e-5, atol=1e-5)
