"""Arrays, draws and gradients of one backend, for tests that are written once for both."""

import importlib

import numpy as np

BACKENDS = ("pyro", "numpyro")


class Torch:
    """Pyro's side. Floating-point arrays have the dtype."""

    name = "pyro"

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.dist = importlib.import_module("ppl_vae.backends.pyro.distributions").dist
        self.F = importlib.import_module("ppl_vae.backends.pyro.functions").F

    def array(self, value):
        import torch

        value = np.asarray(value)
        return torch.as_tensor(value.astype(self.dtype) if value.dtype.kind == "f" else value)

    @staticmethod
    def host(value):
        return value.detach().numpy()

    @staticmethod
    def whole(function):
        """Return a function that runs as one program."""
        return function

    @staticmethod
    def draws(distribution, count, seed=0):
        import torch

        torch.manual_seed(seed)
        return distribution.sample((count,)).numpy()

    def gradients(self, function, *values):
        """Return the gradients of a scalar function of arrays, as NumPy arrays."""
        import torch

        leaves = [self.array(value).requires_grad_() for value in values]
        found = torch.autograd.grad(function(*leaves), leaves, allow_unused=True)
        return [
            np.zeros(leaf.shape) if g is None else g.numpy() for g, leaf in zip(found, leaves, strict=True)
        ]

    @staticmethod
    def sample(distribution):
        import torch

        torch.manual_seed(0)
        return distribution.sample()

    @staticmethod
    def reparametrised_draw(distribution):
        import torch

        torch.manual_seed(0)
        return distribution.rsample()

    @staticmethod
    def kl(q, p):
        import torch

        return torch.distributions.kl_divergence(q, p)


class Jax:
    """NumPyro's side."""

    name = "numpyro"
    host = staticmethod(np.asarray)

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.dist = importlib.import_module("ppl_vae.backends.numpyro.distributions").dist
        self.F = importlib.import_module("ppl_vae.backends.numpyro.functions").F

    def array(self, value):
        import jax.numpy as jnp

        value = np.asarray(value)
        return jnp.asarray(value.astype(self.dtype) if value.dtype.kind == "f" else value)

    @staticmethod
    def whole(function):
        """Return a function that runs as one program: each operation by itself would be compiled alone."""
        import jax

        return jax.jit(function)

    def draws(self, distribution, count, seed=0):
        import jax

        draw = self.whole(lambda key: distribution.sample(key, (count,)))
        return np.asarray(draw(jax.random.key(seed)))

    def gradients(self, function, *values):
        """Return the gradients of a scalar function of arrays, as NumPy arrays."""
        import jax

        gradients = self.whole(jax.grad(function, argnums=tuple(range(len(values)))))
        found = gradients(*map(self.array, values))
        return [np.asarray(gradient) for gradient in found]

    @staticmethod
    def sample(distribution):
        import jax

        return distribution.sample(jax.random.key(0))

    @staticmethod
    def reparametrised_draw(distribution):
        import jax

        return distribution.rsample(jax.random.key(0))

    @staticmethod
    def kl(q, p):
        from numpyro.distributions.kl import kl_divergence

        return kl_divergence(q, p)


def side(name, dtype="float64"):
    """Yield one backend's side; JAX keeps double precision meanwhile where that is the dtype."""
    if name == "pyro":
        yield Torch(dtype)
        return
    import jax

    with jax.enable_x64(dtype == "float64"):
        yield Jax(dtype)
