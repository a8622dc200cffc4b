"""From a likelihood's name and a network's parameters to a distribution."""

import pyro.distributions as dist

from ppl_vae import likelihoods
from ppl_vae.backends.pyro.distributions.discretized_logistic import DiscretizedLogistic
from ppl_vae.networks import LikelihoodParameters


def likelihood(text: str, parameters: LikelihoodParameters) -> dist.Distribution:
    """Return the likelihood of a name, with every axis of an observation in its event shape.

    Parameters
    ----------
    text : str
        As `ppl_vae.likelihoods.parse` reads it.
    parameters : LikelihoodParameters
        Of a network `nn.Likelihood` of the same name.
    """
    kind, values = likelihoods.parse(text), parameters.values
    if kind.name == "bernoulli":
        base = dist.Bernoulli(logits=values[0])
    elif kind.name.startswith("normal"):
        base = dist.Normal(*values)
    elif kind.name == "discretized_logistic":
        base = DiscretizedLogistic(*values, levels=kind.count)
    elif kind.name == "poisson":
        base = dist.Poisson(values[0])
    elif kind.name == "negative_binomial":
        base = dist.GammaPoisson(values[1], values[1] / values[0])
    else:
        base = dist.Categorical(logits=values[0])
    return base.to_event(parameters.event_dim)
