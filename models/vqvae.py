"""Vector-quantized variational autoencoder (van den Oord et al. 2017, arXiv:1711.00937).

z is a grid of codes, each ~ Categorical over a codebook;   x | z ~ likelihood(decoder(z)).
q(z | x) puts all mass on the code nearest to encoder(x); the decoder's gradient passes straight through.
"""

from dataclasses import dataclass
from typing import Literal

from ppl_vae import Program


@dataclass(frozen=True)
class VQVAE(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data
    codes: int = 512  # in the codebook
    code_dim: int = 64  # numbers of a code
    hidden: int = 128  # channels
    sigma: float = 0.25  # of the pixels, fixed: the squared error up to a constant
    commitment: float = 0.25  # weight of the encoder's distance from its codes
    learning: Literal["ema", "gradient"] = "ema"  # of the codebook; gradient: the paper's three-term loss
    learned_prior: bool = False  # of the codes; else every code has the same probability

    def __post_init__(self):
        super().__post_init__()
        self.require(self.hidden > 1, f"hidden={self.hidden}: the outer layers have half as many channels")
        self.require(self.sigma > 0, f"sigma={self.sigma}: a standard deviation is above 0")
        self.require(self.commitment >= 0, f"commitment={self.commitment}: a penalty is not negative")

    def networks(self, nn):
        return {
            "encoder": nn.ConvGrid(self.x_shape, self.hidden, self.code_dim),
            "codebook": nn.CodebookState(
                self.codes, self.code_dim, self.learning, learned_prior=self.learned_prior
            ),
            "decoder": nn.GridConv(self.code_dim, self.hidden, self.x_shape),
        }

    @property
    def grid(self):
        return tuple((size // 2) // 2 for size in self.x_shape[1:])

    def model(self, ppl, net, x=None):
        book = net.codebook()
        with ppl.minibatch(x):
            codes = ppl.dist.Codebook(book.vectors, book.logits, self.grid)
            z = ppl.sample("z", codes.to_event(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), ppl.array(self.sigma)).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            z_e = net.encoder(x)
            book = net.codebook(z_e)
            nearest = ppl.dist.VectorQuantized(z_e, book.index, book.vectors)
            ppl.sample("z", nearest.to_event(2))
            # A factor of the guide counts as log q, which the objective subtracts: a positive error is a
            # penalty.
            ppl.factor("commitment", self.commitment * nearest.commitment_error().sum((-1, -2)))
            if self.learning == "gradient":
                ppl.factor("codebook", nearest.codebook_error().sum((-1, -2)))
