"""Top-down variational autoencoder with bidirectional inference (Kingma et al. 2016, arXiv:1606.04934).

h_1 is learned;   z_l | z_<l ~ N(prior_l(h_l));   h_(l+1) = down_l(h_l, z_l);   x | z ~ Bernoulli(out(h)).
q(z_l | z_<l, x) = N(posterior_l(h_l, up(x))), with up(x) at the resolution of h_l.
The first half of the latents lies at a quarter of the image's resolution, the others at half of it.
"""

from dataclasses import dataclass

from ppl_vae import Network, Program
from ppl_vae.networks import Bottleneck, normal
from ppl_vae.shapes import image_shape


@dataclass(frozen=True)
class TopDown(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data; height and width in fours
    latents: int = 10  # groups of them, one above the other
    z_channels: int = 8  # of a latent
    width: int = 32  # channels between residual blocks
    inner: int = 16  # channels within a residual block, and at full resolution

    def networks(self, nn):
        channels, height, width = image_shape(self.x_shape, multiple=4)
        sizes, every = (channels, self.width, self.inner, self.z_channels), range(self.latents)
        return {
            "up": Up(*sizes),
            "start": nn.Parameter((self.width, height // 4, width // 4)),
            "prior": [Prior(*sizes) for _ in every],
            "posterior": [Posterior(*sizes) for _ in every],
            "down": [Down(*sizes, grows=layer + 1 == self.low) for layer in every],
            "out": Out(*sizes),
        }

    @property
    def low(self):  # how many latents lie at a quarter of the resolution
        return (self.latents + 1) // 2

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            h = net.start()
            for layer in range(self.latents):
                loc, scale = net.prior[layer](h)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(3))
                h = net.down[layer](h, z)
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.out(h)).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            low, high = net.up(x)
            h = net.start()
            for layer in range(self.latents):
                loc, scale = net.posterior[layer](h, low if layer < self.low else high)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(3))
                if layer + 1 < self.latents:
                    h = net.down[layer](h, z)


@dataclass(frozen=True)
class Block(Network):  # the sizes that all blocks have
    channels: int
    width: int
    inner: int
    z: int
    grows: bool = False


class Up(Block):  # images to features at a quarter and at half of their resolution
    def layers(self, nn):
        blocks = [Bottleneck(self.width, self.inner)] * 2
        return {
            "stem": nn.Conv2d(self.channels, self.inner, 3, padding=1),
            "full": Bottleneck(self.inner, self.inner),
            "halve": nn.Conv2d(self.inner, self.width, 4, stride=2, padding=1),
            "middle": nn.Sequential(*blocks),
            "quarter": nn.Conv2d(self.width, self.width, 4, stride=2, padding=1),
            "last": nn.Sequential(*blocks),
        }

    def apply(self, F, net, x):
        high = net.middle(net.halve(F.gelu(net.full(net.stem(x)))))
        return net.last(net.quarter(F.gelu(high))), high


class Prior(Block):  # features to location and scale, each [..., z, H, W]
    def layers(self, nn):
        return {"out": nn.Conv2d(self.width, 2 * self.z, 1)}

    def apply(self, F, net, h):
        return normal(F, net.out(F.gelu(h)), -3)


class Posterior(Block):  # features from above and from below to the same
    def layers(self, nn):
        above, below = (nn.Conv2d(self.width, 2 * self.z, 1, bias=bias) for bias in (True, False))
        return {"above": above, "below": below}

    def apply(self, F, net, h, up):
        return normal(F, net.above(F.gelu(h)) + net.below(F.gelu(up)), -3)


class Down(Block):  # take in a latent [..., z, H, W]; where it grows, go on at twice the resolution
    def layers(self, nn):
        made = {"take": nn.Conv2d(self.z, self.width, 1), "block": Bottleneck(self.width, self.inner)}
        return made | ({"grow": nn.ConvTranspose2d(self.width, self.width, 4, 2, 1)} if self.grows else {})

    def apply(self, F, net, h, z):
        h = net.block(h + net.take(z))
        return net.grow(h) if self.grows else h


class Out(Block):  # features at half resolution to the logits of an image
    def layers(self, nn):
        grow = nn.ConvTranspose2d(self.width, self.inner, 4, stride=2, padding=1)
        return {"grow": grow, "last": nn.Conv2d(self.inner, self.channels, 3, padding=1)}

    def apply(self, F, net, h):
        return net.last(F.gelu(net.grow(F.gelu(h))))
