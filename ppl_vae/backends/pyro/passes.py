"""Passes over rows on Pyro; see `ppl_vae.backends.common.tracing.Passes`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro.arrays import noise_kept, on_host, seed_noise
from ppl_vae.backends.pyro.denormals import flushed
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.options import stream as stream_of
from ppl_vae.progress import tell, told


class Passes:
    """Passes of one bound program, within `at_rest`."""

    def __init__(self, bound: nn.Module, seed: int, start: int):
        self.bound, self.seed, self.tracer, self._start = bound, seed, Tracer(bound), start
        self.stage(0)

    def __call__(
        self, name: Any, function: Callable[..., Any], *arrays: Any, stream: tuple[int, ...] | None = None
    ) -> Any:
        if stream is not None:
            words = np.random.SeedSequence([self.seed, *stream]).generate_state(1, np.uint64)
            seed_noise(int(words[0]), self.bound.device)
        return on_host(function(self.tracer, *map(self.bound.put, arrays)))

    def stage(self, number: int) -> None:
        """Start the noise from its seed; the second stage's goes on where the first one's ends."""
        if number == 0:
            seed_noise(self._start, self.bound.device)

    def aside(self, name: Any, function: Callable[..., Any], *arrays: Any) -> Any:
        with noise_kept(self.bound.device):
            return self(name, function, *arrays)

    def described(self, function: Callable[..., Any], *arrays: Any) -> None:
        with noise_kept(self.bound.device):
            function(self.tracer, *map(self.bound.put, arrays))

    def chunks(self, rows: Any, most: int) -> Iterator[tuple[dict[str, Tensor], int | None]]:
        if not isinstance(rows, Mapping):
            for done, item in enumerate(rows, 1):
                yield self.bound.as_batch(item), None
                tell(done, len(rows))
            return
        for part in told(chunk_rows(rows, most), count_rows(rows)):
            yield self.bound.put({n: values[part] for n, values in self.bound.among(rows).items()}), None

    def importance(self, rows: Any, samples: int, at_once: int, most: int, compile: bool) -> np.ndarray:
        from ppl_vae.backends.pyro.importance import importance_bounds

        batches = (batch for batch, _ in self.chunks(rows, most))
        bounds = importance_bounds(self.bound, batches, samples, at_once, compile)
        return np.concatenate([value.cpu().numpy() for value in bounds])


@contextmanager
def at_rest(bound: nn.Module, seed: int, name: str | None = None) -> Iterator[Passes]:
    """Run in evaluation mode without gradients, on a stream of noise of its own; afterwards everything is as
    before.
    """
    mode = bound.training
    bound.eval()
    try:
        with (
            flushed(),
            torch.no_grad(),
            noise_kept(bound.device),
            pyro.validation_enabled(False),
        ):
            yield Passes(bound, seed, seed if name is None else stream_of(seed, name))
    finally:
        bound.train(mode)
