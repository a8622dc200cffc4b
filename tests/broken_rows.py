"""Programs whose rows meet, or that do not train or draw."""

import pyro.distributions as dist
import torch
from toys import BOTH, COUNTS, GREY, REALS, Around, Autoregressive, Function, Linear, OnCounts, Toy, breaks


@breaks("rows", ["network 'decoder' mixes rows", "site 'x' of the model"], backends=BOTH)
class AveragingDecoder(Linear):
    def decoder(self):
        return Function(
            self.z_dim,
            6,
            lambda F, layer, z: F.broadcast_to(F.mean(layer(z), -2, keepdims=True), (*z.shape[:-1], 6)),
        )


@breaks("rows", ["network 'decoder' mixes rows"])
class CausalDecoder(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: F.cumsum(layer(z), -2))


@breaks("rows", ["network 'decoder' mixes rows"])
class CausalBackwards(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: F.flip(F.cumsum(F.flip(layer(z), -2), -2), -2))


@breaks("rows", ["network 'encoder' mixes rows", "site 'z' of the guide"], COUNTS)
class AveragingEncoder(OnCounts):
    def encoded(self, head, x):
        return head(x.float() - x.float().mean(0))


@breaks("rows", ["network 'decoder' mixes rows", "site 'x' of the model"], COUNTS)
class AveragingRates(OnCounts):
    def decoded(self, layer, z):
        return layer(z.mean(-2, keepdim=True) + z)


@breaks("rows", ["rows mix: the bound of one row has a gradient by x of the other rows"], backends=BOTH)
class FaintLeak(Toy):
    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc + 1e-9 * x.mean(), scale).to_event(1)


@breaks("rows", ["site 'x' of the model mixes rows"])
class StoryAverages(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            z = z - z.mean(-2, keepdim=True)
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("rows", ["site 'penalty' of the guide mixes rows"], rows=GREY, likelihood="normal")
class LeakyCommitment(Toy):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", self.posterior(ppl, net, x))
            ppl.factor("penalty", x.mean().expand(len(x)))


@breaks(
    "batch sizes", ["network 'decoder' gives a row another density with 1 row than with 7"], backends=BOTH
)
class DividesByRows(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z) / z.shape[-2])


@breaks(
    "batch sizes", ["with a batch of 1 row network 'encoder' (called by the guide) fails", "no squeeze()"]
)
class SqueezesOneRow(Toy):
    def networks(self, ppl_nn):
        made = super().networks(ppl_nn)
        return made | {"encoder": Around(made["encoder"], lambda head, x: head(x.squeeze()[:, :6]))}


@breaks("batch sizes", ["with a batch of 3 rows the model fails", "ValueError: only 1 or 7"])
class FixedBatch(Toy):
    def model(self, ppl, net, x=None):
        if x is not None and len(x) == 3:
            raise ValueError("only 1 or 7")
        super().model(ppl, net, x)


@breaks(
    "particles",
    [
        "with 2 samples per row network 'decoder' (called by the model) fails",
        "[2, 7, ...]",
        ": flatten and reshape from the last axes only",
    ],
    backends=BOTH,
)
class FlattensRows(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z.reshape(len(z), -1)))


@breaks("particles", ["network 'decoder' swallows the axis of the samples"], backends=BOTH)
class SwallowsSamples(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z.reshape(-1, z.shape[-1])))


@breaks("particles", ["network 'decoder' swallows the axis of the samples"])
class FirstSampleOnly(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z[0] if z.ndim == 3 else z))


@breaks("particles", ["site 'x' of the model has other densities with 2 samples per row than with one"])
class MixesSamples(Linear):
    def decoder(self):
        return Function(
            self.z_dim,
            6,
            lambda F, layer, z: layer(F.mean(z, 0, keepdims=True) + 0 * z if z.ndim == 3 else z),
        )


@breaks("parameters", ["no gradient reaches network 'extra': use it in model or guide"])
class DeadNetwork(Toy):
    def networks(self, nn):
        return super().networks(nn) | {"extra": nn.MLP(2, (3,), 2)}


@breaks("parameters", ["no gradient reaches network 'decoder'"], backends=BOTH)
class Detached(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: F.stop_gradient(layer(z)))


@breaks("parameters", ["no gradient reaches decoder.layer.bias:"])
class HalfDead(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: z @ layer.weight.T + 0 * layer.bias)


@breaks(
    "prior",
    ["model(n=3) without data: the model fails", "AttributeError: 'NoneType'", "sizes from the program"],
)
class NeedsData(Toy):
    def model(self, ppl, net, x=None):
        assert x.shape[1:] == self.x_shape
        super().model(ppl, net, x)


@breaks("prior", ["model(n=1) without data: the model fails in broken_rows.py", "too many indices"])
class DrawsManyRowsOnly(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            z = z if x is not None else z.squeeze()[:, :]
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("prior", ["model(n=3) without data draws no site 'x'"])
class ScoresOnly(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            if x is not None:
                ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("prior", ["model(n=3) draws 'x' of shape (3, 5), the data has (3, 6)"])
class DrawsOtherShape(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            logits = net.decoder(z) if x is not None else net.decoder(z)[..., 1:]
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Endless(dist.Normal):
    def rsample(self, sample_shape=torch.Size()):
        return super().rsample(sample_shape) / 0.0


@breaks("prior", ["model(n=3) draws NaN or infinity at site 'x'"], rows=REALS)
class DrawsInfinity(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", Endless(net.decoder(z), 1.0).to_event(1), obs=x)


@breaks("decoding", ["site 'x' draws from another likelihood (", "than it scores by ("], backends=BOTH)
class DrawsElsewhere(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            logits = net.decoder(z) if x is not None else net.decoder(0.5 * z)
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)


@breaks("decoding", ["drawing at given latents: the model fails", "ValueError: too many"])
class DrawsFewRows(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            if x is None and len(z) > 3:
                raise ValueError("too many")
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


class NoMean(dist.Bernoulli):
    @property
    def mean(self):
        raise NotImplementedError


@breaks("decoding", ["reconstructing: ", "has no mean to show", ": give the likelihood a mean"])
class NoCentre(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", NoMean(logits=net.decoder(z)).to_event(1), obs=x)


@breaks(
    "entries",
    ["reads the value that it scores: that of x[0] depends on x[0]", "shift or mask"],
    backends=BOTH,
    of="all",
)
class ReadsItself(Autoregressive):
    pass


@breaks("entries", ["has no order: those of x[0] and x[1] depend on each other"], of="others")
class ReadsAllOthers(Autoregressive):
    pass


@breaks("entries", ["x[0] depends on x[0]", "give what is known beforehand as a field of its own"], COUNTS)
class ScaledByItsOwnSum(OnCounts):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            rate = net.decoder(z).values[0].sigmoid()
            rate = rate if x is None else rate * x.sum(-1, keepdim=True)
            ppl.sample("x", ppl.dist.Poisson(rate + 0.1).to_event(1), obs=x)
