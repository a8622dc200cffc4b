"""A layer or a network on one backend, called with NumPy's arrays."""

from typing import Any

import numpy as np

BACKENDS = ("pyro", "numpyro")


def leaves(tree):
    """Return the arrays of an output, in order."""
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree] if hasattr(tree, "shape") else []


def mapped(function, tree):
    """Return a tree of tuples, named or not, with a function of its arrays."""
    if isinstance(tree, np.ndarray):
        return function(tree)
    if not isinstance(tree, tuple):
        return tree
    parts = (mapped(function, part) for part in tree)
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


class OnTorch:
    """What `declare(nn)` gives, bound to torch."""

    def __init__(self, declare: Any, seed: int = 0):
        import torch

        from ppl_vae.backends.pyro.networks import NN

        torch.default_generator.manual_seed(seed)
        self.module = NN.module(declare(NN))

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.numpy().copy() for name, value in self.module.state_dict().items()}

    def load(self, weights: dict[str, np.ndarray]) -> None:
        import torch

        self.module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})

    def __call__(self, *inputs: Any, training: bool = False, frozen: bool = False, **named: Any) -> list:
        """Return the arrays of the output; what the call wrote is kept."""
        import torch

        self.module.train(training)
        for part in self.module.modules():
            if hasattr(part, "frozen"):
                part.frozen = frozen
        with torch.no_grad():
            given = mapped(torch.from_numpy, inputs)
            return [leaf.numpy() for leaf in leaves(self.module(*given, **named))]


class OnFlax:
    """What `declare(nn)` gives, bound to flax."""

    def __init__(self, declare: Any, seed: int = 0):
        from ppl_vae.backends.numpyro.networks import Seeded

        nn = Seeded(seed)
        self.module = nn.module(declare(nn))

    def weights(self) -> dict[str, np.ndarray]:
        from ppl_vae.backends.numpyro.weights import to_torch

        return {name.removeprefix("n."): value for name, value in to_torch({"n": self.module}).items()}

    def load(self, weights: dict[str, np.ndarray]) -> None:
        from ppl_vae.backends.numpyro.weights import from_torch

        from_torch({"n": self.module}, {f"n.{name}": value for name, value in weights.items()})

    def __call__(self, *inputs: Any, training: bool = False, frozen: bool = False, **named: Any) -> list:
        import jax
        from flax import nnx

        self.module.set_attributes(training=training, frozen=frozen, raise_if_not_found=False)
        graph, state = nnx.split(self.module)

        @jax.jit  # compiled as one: each operation by itself would be compiled alone
        def run(state, inputs):
            module = nnx.merge(graph, state)
            return leaves(module(*inputs, **named)), nnx.state(module)

        out, state = run(state, mapped(jax.numpy.asarray, inputs))
        nnx.update(self.module, state)
        return [np.asarray(leaf) for leaf in out]


def made(backend: str, declare: Any, seed: int = 0) -> OnTorch | OnFlax:
    """Bind `declare(nn)`, a layer or a network, with weights that are the same on both backends."""
    first = OnTorch(declare, seed)
    rng = np.random.default_rng(seed)
    weights = {
        name: value if name in KEPT else rng.normal(scale=0.5, size=value.shape).astype(value.dtype)
        for name, value in first.weights().items()
    }
    found = first if backend == "pyro" else OnFlax(declare, seed)
    found.load(weights)
    return found


KEPT = frozenset({"placed", "counts", "sums", "vectors", "moved", "mean", "var"})
