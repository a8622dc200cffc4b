"""Programs with broken numbers: supports, densities, seeds, draws, bounds."""

import numpy as np
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import kl_divergence, register_kl
from toys import BOTH, COUNTS, GREY, REALS, Function, Linear, OnCounts, Toy, breaks


@breaks("support", ["site 'x'", "Bernoulli", "binarize='dynamic'", "discretized_logistic:17"], rows=GREY)
class GreyLevels(Toy):
    pass


@breaks("support", ["outside the support of Bernoulli", "choose the likelihood normal, or scale"], rows=REALS)
class RealBits(Toy):
    pass


@breaks(
    "support",
    ["outside the support of Poisson (such as ", "whole numbers from 0"],
    REALS,
    likelihood="poisson",
)
class RealCounts(Toy):
    pass


@breaks(
    "support", ["the data has 17 grey levels, the likelihood 256"], GREY, likelihood="discretized_logistic"
)
class OtherGrid(Toy):
    pass


@breaks("support", ["site 'z': draws of the guide lie outside the support of its Gamma in the model"])
class NegativeDraws(Toy):
    def prior(self, ppl):
        return ppl.dist.Gamma(ppl.array([2.0] * self.z_dim), 1.0).to_event(1)


@breaks(
    "finite",
    ["site 'x' of the model: its log density is", "network 'decoder' returns NaN or infinity"],
    backends=BOTH,
)
class NaNLogits(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: F.sqrt(layer(z) - 100.0))


@breaks(
    "finite",
    ["site 'z' of the guide: scale of its Normal is -", "it must be at least 0"],
    backends=BOTH,
)
class NegativeScale(Toy):
    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc, scale - 100.0).to_event(1)


class NaNInTraining(nn.Linear):
    def forward(self, z):
        out = super().forward(z)
        return out / 0.0 if self.training else out


@breaks("finite", ["in train mode", "network 'decoder' returns NaN or infinity"])
class OnlyInTraining(Linear):
    def decoder(self):
        return NaNInTraining(self.z_dim, 6)


@breaks("finite", ["the gradient of decoder.layer.", "is nan though the densities are finite"], backends=BOTH)
class InfiniteSlope(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: F.sqrt(layer(z) * 0.0))


# -- seeds, draws


@breaks("seeds", ["site 'x' of the model is another one in a second run with seed 0"], backends=BOTH)
class ForeignNoise(Linear):
    def decoder(self):
        noise = np.random.standard_normal
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z + float(noise())))


class Counting(nn.Linear):
    calls = 0

    def forward(self, z):
        self.calls += 1
        return super().forward(z) * self.calls


@breaks("seeds", ["site 'x' of the model is another one in a second run"])
class Counter(Linear):
    def decoder(self):
        return Counting(self.z_dim, 6)


@breaks("seeds", ["another seed gives the same draws"])
class OwnSeed(Toy):
    def guide(self, ppl, net, x):
        torch.manual_seed(0)
        super().guide(ppl, net, x)


@breaks("seeds", ["decoder.weight starts elsewhere when bound again with seed 0"])
class ForeignWeights(Linear):
    def decoder(self):
        layer = nn.Linear(self.z_dim, 6)
        layer.weight.data = torch.from_numpy(np.random.standard_normal((6, self.z_dim))).float()  # noqa: NPY002
        return layer


@breaks(
    "draws", ["site 'z': Bernoulli has no reparametrised draw", "pyro.infer.TraceGraph_ELBO"], backends=BOTH
)
class DiscreteDraw(Toy):
    def prior(self, ppl):
        return ppl.dist.Bernoulli(ppl.array([0.5] * self.z_dim)).to_event(1)

    def posterior(self, ppl, net, x):
        return ppl.dist.Bernoulli(logits=net.encoder(x).loc).to_event(1)


@breaks("draws", ["site 'k' is enumerated", "pyro.infer.TraceEnum_ELBO"])
class Enumerated(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            ppl.sample("k", ppl.dist.Categorical(ppl.array([0.5, 0.5])))
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            probs = net.encoder(x).scale[..., :2]
            ppl.sample("k", ppl.dist.Categorical(probs), infer={"enumerate": "parallel"})
            ppl.sample("z", self.posterior(ppl, net, x))


@breaks(
    "support",
    ["outside the support of Categorical", "number of classes - 1"],
    COUNTS,
    likelihood="categorical:3",
)
class FewClasses(OnCounts):
    pass


class Negative(dist.Normal):
    pass


class Small(dist.Normal):
    pass


class Shifted(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value) + 5.0


@register_kl(Negative, dist.Normal)
def _kl_negative(q, p):
    return kl_divergence(dist.Normal(q.loc, q.scale), p) - 7.0


@register_kl(Small, dist.Normal)
def _kl_small(q, p):
    return kl_divergence(dist.Normal(q.loc, q.scale), p) * 0.1


class WithPosterior(Toy):
    kind = None

    def posterior(self, ppl, net, x):
        return self.kind(*net.encoder(x)).to_event(1)


@breaks("bound", ["site 'z': KL(Negative || Normal) in closed form is -", "never below 0"])
class NegativeKL(WithPosterior):
    kind = Negative


@breaks("bound", ["site 'z': KL(Small || Normal) in closed form is", "log q - log p on average"])
class SmallKL(WithPosterior):
    kind = Small


@breaks("bound", ["site 'z': KL(Shifted || Normal)", "its KL, log_prob or sampler is wrong"])
class WrongDensity(WithPosterior):
    kind = Shifted
