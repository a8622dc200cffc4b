"""A program bound to NumPyro, as the rules of the contract look at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, random
from jax.tree_util import keystr, tree_flatten_with_path

from ppl_vae.backends.common import probe as common
from ppl_vae.backends.numpyro.bound import Bound, bind
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.passes import pure
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.recorder import Recorder
from ppl_vae.contract.generators import foreign_generators
from ppl_vae.contract.probe import Arrays, ProgramFailure
from ppl_vae.objectives import ELBO
from ppl_vae.program import PlainProgram, Program

# What is compiled here runs a few times: a quick compilation matters more than quick code.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


class Probe(common.Probe):
    """See `ppl_vae.contract.probe.Probe`."""

    frozen = "an nnx.Variable other than nnx.Param"

    def __init__(self, bound: Bound | PlainBound):
        super().__init__(bound, Recorder(bound))
        self._compiled: dict[Any, Any] = {}

    def close(self) -> None:
        """Do nothing: the arrays of a bound program are its own."""

    def train(self, mode: bool) -> None:
        self.bound.train(mode)

    def _computed(self, name: Any, function: Callable[..., Any], known: Any, seed: int, *arrays: Any) -> Any:
        bound = self.bound
        inputs = jax.tree.map(jnp.asarray, (dict(bound.scalars), *arrays))
        arguments = bound.params, bound.state, random.key(seed), *inputs
        return self._run(name, pure(bound, function), known, *arguments)

    def _run(self, name: Any, function: Callable[..., Any], known: Any, *arguments: Any) -> tuple[Any, Any]:
        """Return what a function answers, compiled once for its shapes, and what its compilation learnt."""
        kinds = str(jax.tree.map(lambda a: (a.shape, a.dtype), arguments))
        key = name, self.bound.training, kinds
        with self._asked(0):
            if key not in self._compiled:
                compiled = self._called("program", lambda: jax.jit(function).lower(*arguments).compile(QUICK))
                self._compiled[key] = compiled, known
            compiled, known = self._compiled[key]
            return jax.device_get(self._called("program", lambda: compiled(*arguments))), known

    def parameter_gradients(self, rows: Arrays, seed: int = 0, step: float = 0.0) -> dict[str, float | None]:
        objective = Objective(self.bound, ELBO(), self.num_data)

        def loss(parameters: Any, state: Any, key: Array, batch: Any) -> Array:
            return objective(parameters, state, key, batch, {"beta": 1.0}).value

        parameters = self.bound.trainable()
        arguments = parameters, self.bound.state, random.key(seed), self._batch(rows)
        gradients, _ = self._run("loss", jax.grad(loss), None, *arguments)
        moved = jax.tree.map(
            lambda p, g: p - jnp.asarray(step * np.sign(np.nan_to_num(g))), parameters, gradients
        )
        self.bound.load_trainable(moved)
        leaves, _ = tree_flatten_with_path(gradients)
        return {_name(path): float(np.abs(g).max()) if g.size else None for path, g in leaves}

    @contextmanager
    def _asked(self, seed: int) -> Iterator[None]:
        self._recorder.start()
        with foreign_generators(), numpyro.validation_enabled(False):
            yield


def probe(program: Program | PlainProgram, fields: tuple[str, ...], num_data: int, seed: int) -> Probe:
    """Bind a program for a check; see `ppl_vae.contract.probe.Maker`."""
    with foreign_generators(), numpyro.validation_enabled(False):
        try:
            if program.declared:
                return Probe(bind(program, num_data=num_data, seed=seed))
            return Probe(PlainBound(program, fields, num_data, seed))
        except Exception as error:
            raise ProgramFailure("the method networks", error) from error


def _name(path: tuple) -> str:
    """Return a parameter's name: its site, then its place in the tree."""
    return ".".join(
        filter(None, [path[0].key.removesuffix("$params"), keystr(path[1:], simple=True, separator=".")])
    )
