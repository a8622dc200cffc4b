"""A VQ-VAE whose codes are parameters, and begin anew within a few steps."""

from ppl_vae import load


def reviving():
    """Return the program, for images of 1 x 8 x 8."""
    small = load("vqvae", codes=8, code_dim=4, hidden=8, learning="gradient")

    class Reviving(type(small)):
        def networks(self, nn):
            book = nn.CodebookState(self.codes, self.code_dim, self.learning, decay=0.2, revive=0.5)
            return super().networks(nn) | {"codebook": book}

    return Reviving(codes=8, code_dim=4, hidden=8, learning="gradient")
