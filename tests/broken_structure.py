"""Programs with a broken part: fields, networks, sites, plates, shapes."""

from dataclasses import dataclass

import pyro.distributions as dist
from torch import nn
from toys import BOTH, COUNTS, GREY, Function, Linear, Toy, breaks

from ppl_vae import Program


@breaks("fields", ["the guide needs the field 'label', the data has x"])
class NeedsLabels(Toy):
    def guide(self, ppl, net, x, label):
        super().guide(ppl, net, x)


@breaks("fields", ["the data's x has shape (6,) per row, the program was made for (5,)"], x_shape=(5,))
class OtherShape(Toy):
    pass


@breaks("fields", ["uses none of the data's fields (x)"])
class OtherNames(Toy):
    def model(self, ppl, net, y=None):
        super().model(ppl, net, y)

    def guide(self, ppl, net, y=None):
        super().guide(ppl, net, y)


@breaks("fields", ["Anything.guide takes *batch: name the data fields"])
class Anything(Toy):
    def guide(self, ppl, net, **batch):
        super().guide(ppl, net, batch["x"])


@breaks("fields", ["the program declares no guide"])
@dataclass(frozen=True)
class NoGuide(Program):
    x_shape: tuple[int, ...] | None = None

    def model(self, ppl, net, x=None):
        pass


@breaks("networks", ["the method networks fails in broken_structure.py, line", "KeyError: 'width'"])
class BadSizes(Toy):
    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, {}["width"], self.z_dim)}


@breaks("networks", ["network 'encoder' is a int, not a Network or a torch.nn.Module"], backends=BOTH)
class NotNetworks(Toy):
    def networks(self, nn):
        return {"encoder": 3}


SHARED = nn.Linear(3, 6)


@breaks("independence", ["two bound programs share 'decoder.weight'"])
class SharedDecoder(Linear):
    def decoder(self):
        return SHARED


# -- batch, sites, plate


@breaks(
    "batch",
    [
        "the model fails in broken_structure.py, line",
        "the program has no network 'decodr': it declares encoder, decoder",
    ],
    backends=BOTH,
)
class Misspelt(Toy):
    def model(self, ppl, net, x=None):
        net.decodr(x)


@breaks("batch", ["Multiple sample sites named 'data'", "open ppl.minibatch once"])
class TwoPlates(Toy):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("w", ppl.standard_normal(self.z_dim))
        super().guide(ppl, net, x)


@breaks("batch", ["network 'encoder'", "x holds whole numbers, turn them into floats"], COUNTS)
class WholeNumbers(Toy):
    def networks(self, ppl_nn):
        return super().networks(ppl_nn) | {"encoder": nn.Linear(6, 6)}


@breaks(
    "batch",
    ["network 'decoder' (called by the model) fails in broken_structure.py", "RuntimeError: mat1 and mat2"],
)
class WrongWidth(Linear):
    def decoder(self):
        return Function(self.z_dim + 1, 6, lambda F, layer, z: layer(z))


@breaks("sites", ["site 'w' of the model is not in the guide"], backends=BOTH)
class ForgottenSite(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            w = ppl.sample("w", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z + w)), obs=x)


@breaks("sites", ["site 'w' of the guide is not in the model"])
class ExtraSite(Toy):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", self.posterior(ppl, net, x))
            ppl.sample("w", ppl.standard_normal(self.z_dim))


@breaks("sites", ["the model observes no data"])
class Unobserved(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.deterministic("x", net.decoder(z).values[0])


@breaks(
    "plate",
    [
        "site 'z' of the guide has rows but lies outside the plate",
        ": sample it within `with ppl.minibatch(x):`",
    ],
    backends=BOTH,
)
class GuideOutside(Toy):
    def guide(self, ppl, net, x):
        ppl.sample("z", self.posterior(ppl, net, x))


@breaks("plate", ["site 'z' of the guide has rows but lies outside the plate"])
class BothOutside(GuideOutside):
    def model(self, ppl, net, x=None):
        z = ppl.sample("z", ppl.standard_normal(self.z_dim))
        with ppl.minibatch(x):
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("plate", ["site 'z' lies in the plate over the rows in the guide but not in the model"])
class ModelOutside(Toy):
    def model(self, ppl, net, x=None):
        z = ppl.sample("z", ppl.standard_normal(self.z_dim))
        with ppl.minibatch(x):
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("plate", ["site 'x' of the model has rows but lies outside the plate"])
class LikelihoodOutside(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
        ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("plate", ["site 'x' takes data but lies outside the plate"])
class AllInOneEvent(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
        ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)).to_event(1), obs=x)


# -- shapes


@breaks("shapes", ["site 'z' has 3 numbers in the place of the 7 of the plate 'data'", ".to_event("])
class TooFewEventDims(Toy):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(*net.encoder(x)))


@breaks("shapes", ["site 'z' has 7 numbers in the place of the 11 of the plate 'data'"], z_dim=7)
class AsManyAsRows(TooFewEventDims):
    """A wrong axis that would fit a batch of 7 rows."""


@breaks("shapes", ["site 'x' has 6 numbers in the place of the 7 of the plate 'data'"])
class LikelihoodWithoutEvent(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.decoder(z)), obs=x)


@breaks("shapes", ["site 'z' has event shape (7, 3) in the guide and (3,) in the model"], backends=BOTH)
class TooManyEventDims(Toy):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(*net.encoder(x)).to_event(2))


@breaks("shapes", ["site 'x' of the model has event shape (7, 6) with 7 rows and (3, 6) with 3"])
class RowsInTheEvent(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.decoder(z)).to_event(2), obs=x)


@breaks("shapes", ["site 'z' has event shape (3,) in the guide and (4,) in the model"], backends=BOTH)
class OtherSize(Toy):
    def networks(self, nn):
        return super().networks(nn) | {
            "decoder": nn.Likelihood(self.likelihood, self.z_dim + 1, 8, self.x_shape)
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim + 1))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)


@breaks("shapes", ["site 'x': its Bernoulli has shape (5,) per row, the data (6,)"])
class WrongLikelihoodShape(Linear):
    def decoder(self):
        return nn.Linear(self.z_dim, 5)


@breaks("shapes", ["site 'x': its Bernoulli has shape (1,) per row, the data (6,)"])
class BroadcastLikelihood(Linear):
    def decoder(self):
        return nn.Linear(self.z_dim, 1)


@breaks("shapes", ["site 'x' of the model has batch shape (7, 7), not (7,)"], rows=GREY)
class ImageWithTwoEventDims(Toy):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z).values[0], 1.0).to_event(2), obs=x)


@breaks("shapes", ["site 'w' of the guide has batch shape (4,), not ()"], backends=BOTH)
class GlobalWithoutEvent(Toy):
    def networks(self, nn):
        return super().networks(nn) | {"w": nn.FreeNormal(4)}

    def model(self, ppl, net, x=None):
        ppl.sample("w", ppl.dist.Normal(ppl.array([0.0] * 4), 1.0))
        super().model(ppl, net, x)

    def guide(self, ppl, net, x):
        ppl.sample("w", ppl.dist.Normal(*net.w()))
        super().guide(ppl, net, x)


class Unscored(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError("no density yet")


@breaks("shapes", ["site 'z' of the guide", "log_prob fails (NotImplementedError: no density yet)"])
class NoDensity(Toy):
    def posterior(self, ppl, net, x):
        return Unscored(*net.encoder(x)).to_event(1)
