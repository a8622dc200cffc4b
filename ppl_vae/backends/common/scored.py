"""Which networks' outputs score which fields of the data, for the first weights that data decides."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.site import under
from ppl_vae.backends.common.tracing import Arrays, Tracer
from ppl_vae.data.masks import observed
from ppl_vae.networks import Likelihood, Network

FEW = 2  # rows


@dataclass(frozen=True, eq=False)
class Scored:
    """Rows, of which numbers that no site counts are masked.

    Attributes
    ----------
    rows : dict of str to [N, ...]
    networks : dict of str to Network
        By field: the network `nn.Likelihood` whose output is the parameters of the site that observes it.
    """

    rows: Mapping[str, np.ndarray]
    networks: Mapping[str, Network] = field(default_factory=dict)

    @classmethod
    def by(cls, bound: Any, rows: Arrays) -> "Scored":
        """Run the model of a bound program on the first rows, and note which sites observe fields as they
        are; nothing of a model that fails, which training tells.
        """
        networks: dict[str, Network] = {}
        masked: set[str] = set()

        def look(tracer: Tracer, batch: Any) -> None:
            calls = Calls(made={})
            for site in tracer.model(batch, calls=calls).observed.values():
                for name in (name for name, values in batch.items() if site.value is values):
                    if site.masks:
                        masked.add(name)
                    inner = under(calls.made[site.name])[-1] if site.name in calls.made else None
                    if (network := getattr(inner, "network", None)) is not None:
                        networks[name] = network

        with suppress(Exception), bound.passes(0) as passes:
            passes.described(look, {name: values[:FEW] for name, values in rows.items()})
        seen = {name: observed(rows, name in masked, name) for name in rows}
        counted = {
            name: values if seen[name] is None else np.ma.array(values, mask=~seen[name])
            for name, values in rows.items()
        }
        return cls(counted, networks)

    def rows_of(self, network: Network) -> Mapping[str, np.ndarray]:
        """Return the rows by which a network starts: of one that gives parameters of likelihoods, those that
        it scores.
        """
        if not isinstance(network, Likelihood):
            return self.rows
        return {name: self.rows[name] for name, owner in self.networks.items() if owner is network}
