"""The VQ-VAE of `models/vqvae.py` by hand, its codebook that of vector-quantize-pytorch."""

import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

RESIDUAL = 32


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, hidden: int):
        super().__init__()
        self.conv3 = nn.Conv2d(hidden, RESIDUAL, 3, padding=1)
        self.conv1 = nn.Conv2d(RESIDUAL, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [B, C, H, W]."""
        return x + self.conv1(F.relu(self.conv3(F.relu(x))))


class HandWrittenVQVAE(nn.Module):
    """A VQ-VAE with moving averages whose output is its loss, in nats per row but for a constant.

    Its parameters come in the order of the declared program's, so that weights carry over.

    Parameters
    ----------
    shape : tuple of int
        C, H, W of an image, height and width in fours.
    codes, code_dim, hidden : int
    sigma, commitment : float
        As in the declared program.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        codes: int = 512,
        code_dim: int = 64,
        hidden: int = 128,
        sigma: float = 0.25,
        commitment: float = 0.25,
    ):
        super().__init__()
        channels, height, width = shape
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, hidden // 2, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(hidden // 2, hidden, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            Residual(hidden),
            Residual(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, code_dim, 1),
        )
        # Its commitment error is a mean over numbers, ours a sum; its straight-through gradient is a choice.
        numbers = code_dim * (height // 4) * (width // 4)
        self.quantizer = VectorQuantize(
            dim=code_dim,
            codebook_size=codes,
            decay=0.99,
            commitment_weight=commitment * numbers,
            rotation_trick=False,
            accept_image_fmap=True,
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_dim, hidden, 3, padding=1),
            Residual(hidden),
            Residual(hidden),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden, hidden // 2, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden // 2, channels, 4, 2, 1),
        )
        self.precision = 0.5 / sigma**2

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of a batch [B, C, H, W]."""
        quantized, _, commitment = self.quantizer(self.encoder(x))
        error = F.mse_loss(self.decoder(quantized), x, reduction="sum") / len(x)
        return self.precision * error + commitment.sum()
