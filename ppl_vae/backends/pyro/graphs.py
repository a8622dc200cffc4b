"""Encode, decode and score as modules from named tensors to named tensors, each with its eager verb."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppl_vae.backends.common import reading
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.predictive import centre, decode, encode, latents_of, one_row, shared_latents
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.passes import at_rest
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.options import stream

Arrays = Mapping[str, np.ndarray]


class Verb(nn.Module, ABC):
    """A verb of a bound program, with the inputs that belong to some rows of its data as `example`."""

    def __init__(self, bound: nn.Module, rows: Arrays):
        super().__init__()
        self.bound = bound
        self.example = self.inputs(rows)
        # torch.export calls the inputs of a graph as the parameters of `forward` are called.
        self.forward = _with_names(self.values, tuple(self.example))

    @abstractmethod
    def inputs(self, rows: Arrays) -> dict[str, np.ndarray]:
        """Return the verb's inputs that belong to rows."""

    @abstractmethod
    def values(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the verb's outputs: what is captured."""

    @abstractmethod
    def eager(self, inputs: Arrays, seed: int) -> dict[str, np.ndarray]:
        """Return the outputs that the verb itself gives."""

    def noise(self, seed: int) -> int:
        """Return the seed of torch's noise that `eager` draws with."""
        return seed


def _with_names(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    def forward(*args: Tensor, **named: Tensor) -> Any:
        return function(**dict(zip(names, args, strict=False)) | named)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return forward


class Encode(Verb):
    """Rows to the guide's latents, as `encode` returns them."""

    def inputs(self, rows: Arrays) -> dict[str, np.ndarray]:
        return self.bound.taken("guide", rows)

    def values(self, **inputs: Tensor) -> dict[str, Tensor]:
        return latents_of(Tracer(self.bound).guide(inputs, centres=True))

    def eager(self, inputs: Arrays, seed: int) -> dict[str, np.ndarray]:
        return encode(self.bound, inputs, seed=seed)


class Decode(Verb):
    """Latents and covariates to the centre of the likelihood, as `decode` returns it. Global latents are the
    guide's centres.
    """

    def inputs(self, rows: Arrays) -> dict[str, np.ndarray]:
        drawn: list[str] = []

        def run(tracer: Tracer, batch: Mapping[str, Tensor]) -> None:
            latents = tracer.guide(batch, centres=True).drawn
            drawn.extend(tracer.model(batch, values=latents))

        taken = {name: rows[name] for name in self.bound.fields if name in rows}
        with at_rest(self.bound, 0) as passes:
            reading.refuse("decode", reading.of_rows(self.bound, passes, taken))
            passes.described(run, {name: value[:1] for name, value in taken.items()})
            covariates = {name: value for name, value in taken.items() if name not in drawn}
            first = {name: value[:1] for name, value in covariates.items()}
            local, shared = one_row(passes, first)
            self.shared = self.bound.put(shared_latents(self.bound, passes, first, shared, draw=False))
        latents = {name: value for name, value in encode(self.bound, rows).items() if name in local}
        return latents | covariates

    def _parts(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return latents and covariates."""
        fields = self.bound.fields
        latents = {name: value for name, value in inputs.items() if name not in fields}
        return latents, {name: value for name, value in inputs.items() if name in fields}

    def values(self, **inputs: Tensor) -> dict[str, Tensor]:
        latents, covariates = self._parts(inputs)
        rows = next(iter(inputs.values())).shape[0]
        # An observation takes its centre too: nobody sees a draw of it.
        values = latents | self.shared
        sites = Tracer(self.bound).model(covariates, n=rows, values=values, centres=True)
        seen = {name: sites[name] for name in self.bound.fields if name in sites and sites[name].local}
        return {name: centre(site.fn) for name, site in seen.items()}

    def eager(self, inputs: Arrays, seed: int) -> dict[str, np.ndarray]:
        latents, covariates = self._parts(inputs)
        return decode(self.bound, latents, covariates=covariates, seed=seed)


class Score(Verb):
    """Rows to the terms of the unweighted bound, one number per row each, as `score` returns them."""

    def inputs(self, rows: Arrays) -> dict[str, np.ndarray]:
        return {name: rows[name] for name in self.bound.fields if name in rows}

    def values(self, **inputs: Tensor) -> dict[str, Tensor]:
        terms = Terms(F, Tracer(self.bound).pair(inputs), 1)
        likelihood = terms.log_likelihood.double()
        rate = sum((kl.double() for kl in terms.kl.values()), start=torch.zeros_like(likelihood))
        if terms.kl_global:
            sharing = self.bound.num_data or likelihood.shape[0]
            rate = rate + sum(kl.double() for kl in terms.kl_global.values()) / sharing
        return {"elbo": likelihood - rate, "rate": rate, "distortion": -likelihood}

    def eager(self, inputs: Arrays, seed: int) -> dict[str, np.ndarray]:
        scores = score(self.bound, inputs, seed=seed)
        return {"elbo": scores.elbo, "rate": scores.rate, "distortion": -scores.log_likelihood}

    def noise(self, seed: int) -> int:
        return stream(seed, "score")


VERBS = {"encode": Encode, "decode": Decode, "score": Score}
