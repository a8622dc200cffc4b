"""Networks that a model file declares for itself run on both backends, without a change to the library."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made import BACKENDS, OnFlax, OnTorch, made

import ppl_vae
from ppl_vae import Network, Program, bind, check, data, evaluate, fit, load
from ppl_vae.errors import ProgramError, UsageError

ROOT = Path(ppl_vae.__file__).parent.parent
PAGE = (ROOT / "docs/models.md").read_text()
(GATED,) = re.findall(
    r"^```python\n(.*?)^```", PAGE.partition("## A network of your own")[2].partition("\n## ")[0], re.M | re.S
)
FILE = f'''"""Networks of its own."""
from dataclasses import dataclass

from ppl_vae import Network, Program
from ppl_vae.networks import MLP, NormalHead


{GATED}

@dataclass(frozen=True)
class Levels(Network):
    """Lists of lists of networks, in turn."""
    width: int

    def layers(self, nn):
        return {{"levels": [[Gated(self.width), Gated(self.width)], [nn.LayerNorm(self.width)]]}}

    def apply(self, F, net, x):
        for level in net.levels:
            for part in level:
                x = part(x)
        return F.gelu(x)


@dataclass(frozen=True)
class Own(Program):
    x_shape: tuple[int, ...] | None = None
    width: int = 4

    def networks(self, nn):
        (size,) = self.x_shape
        return {{
            "down": [[nn.Linear(size, self.width), Levels(self.width)], [Gated(self.width)]],
            "head": NormalHead(self.width, (), 2),
            "up": nn.Sequential(nn.Linear(2, self.width), Levels(self.width), nn.Linear(self.width, size)),
            "shift": nn.Parameter(size),
        }}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            logits = net.up(z) + ppl.F.tanh(net.shift())
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            h = x
            for level in net.down:
                for part in level:
                    h = part(h)
            loc, scale = net.head(h)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))
'''
X = (np.random.default_rng(0).random((60, 6)) < [0.9, 0.9, 0.9, 0.1, 0.1, 0.5]).astype("f")


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return load(path)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_model_file_with_networks_of_its_own_passes_the_check_trains_and_evaluates(own, backend):
    report = check(own, X, backend=backend)
    report.raise_if_failed()
    assert report["parity"].status == "ok"
    run = fit(own, X, backend=backend, max_steps=60, batch_size=20, lr=2e-2, log_every=60)
    found = evaluate(run, split="train", importance_samples=3)
    # Without the data 6 log 2 = 4.16 nats per row; the bits' entropy is 2.3.
    assert found["elbo_nats"] > -3.5
    assert {
        "down.0.1.levels.0.1.scale",
        "down.1.0.gate.weight",
        "up.1.levels.1.0.bias",
        "shift.value",
    } <= set(run.bound.weights())


def test_the_page_says_what_it_computes():
    space = {}
    exec(
        "from dataclasses import dataclass\nfrom ppl_vae import Network\nfrom ppl_vae.networks import MLP\n"
        + GATED,
        space,
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("f")
    for backend in BACKENDS:
        network = made(backend, lambda _: space["Gated"](4))
        w = network.weights()
        h = np.maximum(x @ w["inner.layers.0.weight"].T + w["inner.layers.0.bias"], 0)
        inner = h @ w["inner.layers.1.weight"].T + w["inner.layers.1.bias"]
        gate = 1 / (1 + np.exp(-(x @ w["gate.weight"].T + w["gate.bias"])))
        np.testing.assert_allclose(network(x)[0], x + w["scale"] * gate * inner, rtol=1e-5, atol=1e-5)


@dataclass(frozen=True)
class Counter(Network):
    """Counts its rows, and adds their number so far."""

    def layers(self, nn):
        return {"seen": nn.Buffer(()), "steps": [nn.Parameter((), 2.0), nn.Parameter(())]}

    def apply(self, F, net, x):
        if net.learns:
            net.keep(seen=net.seen + x.shape[0])
        return x * net.steps[0]() + net.steps[1]() + net.seen


@dataclass(frozen=True)
class Shared(Program):
    """Guide and model call one network with an array of its own."""

    def networks(self, nn):
        return {"counter": Counter()}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.counter(z), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.counter(x), 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_array_of_a_network_moves_once_per_step_and_rests_in_evaluation(backend):
    rows = data.of({"train": {"x": np.ones((20, 2), "f")}}, valid=0)
    run = fit(Shared(), rows, backend=backend, max_steps=12, batch_size=5, keep="last")
    evaluate(run, split="train")
    assert run.bound.weights()["counter.seen"] == 12 * 5


def test_a_gradient_sees_the_values_before_a_network_changed_them():
    import torch

    def counted(net, x):
        out = x * net.weight * net.seen
        net.keep(seen=net.seen + 1)
        return out

    network = OnTorch(
        lambda nn: declared(counted, weight=nn.Parameter(3, 2.0), seen=nn.Buffer(3, 5.0))
    ).module
    network(torch.ones(3)).sum().backward()
    assert network.weight.grad.tolist() == [5.0] * 3 and network.seen.tolist() == [6.0] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_numbers_and_truth_values_stay_what_they_are(backend):
    seen = {}

    @dataclass(frozen=True)
    class Looks(Program):
        def model(self, ppl, net, x=None):
            for name, value in (("whole", [1, 2]), ("truth", [True]), ("real", [1.0]), ("wide", np.ones(2))):
                seen[name] = str(ppl.array(value).dtype).removeprefix("torch.")
            seen["joined"] = ppl.F.concat([ppl.array([1, 2]), ppl.array([3])], -1).tolist()
            with ppl.minibatch(x):
                ppl.sample("x", ppl.dist.Normal(ppl.array(0.0), 1.0), obs=x)

        def guide(self, ppl, net, x):
            pass

    bound = bind(Looks(), backend)
    if backend == "pyro":
        bound.model(n=2)
    else:
        from numpyro import handlers

        handlers.seed(bound.model, 0)(n=2)
    assert seen["whole"] in ("int32", "int64") and seen["truth"] == "bool"
    assert seen["real"] == seen["wide"] == "float32"
    assert seen["joined"] == [1, 2, 3]


def declared(function=None, **layers):
    @dataclass(frozen=True)
    class Made(Network):
        def layers(self, nn):
            return layers

        def apply(self, F, net, x):
            return function(net, x)

    return Made()


@pytest.mark.parametrize(("backend", "library"), [("pyro", "torch"), ("numpyro", "flax.nnx")])
def test_mistakes_are_named(backend, library):
    on = {"pyro": OnTorch, "numpyro": OnFlax}[backend]
    with pytest.raises(ProgramError, match=r"network 'wrong' is a int, not a Network or a " + library):
        on(lambda nn: declared(wrong=3))
    with pytest.raises(ProgramError, match="Made: the name 'eval' is taken: give the layer another"):
        on(lambda nn: declared(eval=nn.Linear(2, 2)))
    with pytest.raises(ProgramError, match=r"Made has no layer 'missing': return it from layers\(\)"):
        on(lambda nn: declared(lambda net, x: net.missing(x), there=nn.Linear(2, 2)))(np.ones(2, "f"))
    with pytest.raises(
        ProgramError, match=r"Made cannot keep 'scale': return it from layers\(\) as nn.Buffer"
    ):
        on(lambda nn: declared(lambda net, x: net.keep(scale=x), scale=nn.Parameter(2)))(np.ones(2, "f"))
    with pytest.raises(NotImplementedError, match=r"Network declares no apply\(self, F, net, ...\)"):
        Network().apply(None, None)


def test_sizes_of_a_network_are_those_of_a_program():
    @dataclass(frozen=True)
    class Sized(Network):
        width: int
        sizes: tuple[int, ...] = ()

    assert Sized(2, [3, 4]).sizes == (3, 4)
    with pytest.raises(UsageError, match="width=0: a size must be at least 1"):
        Sized(0)


def test_modules_of_a_library_lie_within_a_network():
    import torch
    from flax import nnx

    x = np.ones((3, 2), "f")

    @dataclass(frozen=True)
    class Around(Network):
        library: str

        def layers(self, nn):
            inner = torch.nn.Linear(2, 4) if self.library == "torch" else nnx.Linear(2, 4, rngs=nn.rngs)
            return {"inner": inner, "out": nn.Linear(4, 1)}

        def apply(self, F, net, x):
            return net.out(F.relu(net.inner(x)))

    found = made("numpyro", lambda nn: Around("flax" if hasattr(nn, "rngs") else "torch"))
    assert set(found.weights()) == {"inner.weight", "inner.bias", "out.weight", "out.bias"}
    expected = made("pyro", lambda nn: Around("torch"))
    np.testing.assert_allclose(found(x)[0], expected(x)[0], rtol=1e-5)
