"""Programs as pairs of functions of NumPyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random


def model(x):
    scale = numpyro.param("scale", jnp.ones(3), constraint=dist.constraints.positive)
    weight = numpyro.param("weight", lambda key: random.normal(key, (3, 6)))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(3), scale).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=z @ weight).to_event(1), obs=x)


def guide(x):
    weight = numpyro.param("encoder", lambda key: random.normal(key, (6, 3)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ weight, 1.0).to_event(1))


def leaky_guide(x):
    weight = numpyro.param("encoder", lambda key: random.normal(key, (6, 3)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal((x - x.mean(0)) @ weight, 1.0).to_event(1))


def dead_guide(x):
    numpyro.param("unused", jnp.zeros(2))
    guide(x)
