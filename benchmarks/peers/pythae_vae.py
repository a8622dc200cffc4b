"""The VAE of fully connected networks in pythae, trained by its own trainer."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor

from peers.mlp import layers


class Encoder(BaseEncoder):
    """[B, ...] to location and log variance, each [B, z_dim]."""

    def __init__(self, dims: int, hidden: tuple[int, ...], z_dim: int):
        super().__init__()
        self.body = layers((dims, *hidden, 2 * z_dim))

    def forward(self, x: Tensor) -> ModelOutput:
        """Return what pythae's VAE asks of an encoder."""
        loc, log_variance = self.body(x.flatten(1)).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """[B, z_dim] to probabilities of bits, [B, dims]: what pythae's cross entropy takes."""

    def __init__(self, dims: int, hidden: tuple[int, ...], z_dim: int):
        super().__init__()
        self.body = layers((z_dim, *hidden[::-1], dims))

    def forward(self, z: Tensor) -> ModelOutput:
        """Return what pythae's VAE asks of a decoder."""
        return ModelOutput(reconstruction=torch.sigmoid(self.body(z)))


def model(dims: int, hidden: tuple[int, ...], z_dim: int) -> VAE:
    """Return pythae's VAE on our networks."""
    config = VAEConfig(input_dim=(dims,), latent_dim=z_dim, reconstruction_loss="bce")
    return VAE(config, Encoder(dims, hidden, z_dim), Decoder(dims, hidden, z_dim))


def epochs_of(
    made: VAE, x: np.ndarray, batch: int, folder: Path, workers: int = 0, lr: float = 1e-3
) -> Callable[[], None]:
    """Return epochs of pythae's trainer: fused Adam, no progress bar, no output.

    Parameters
    ----------
    made : VAE
    x : array
        Training rows.
    batch : int
    folder : path
        For what the trainer writes.
    workers : int
        Processes that fetch its batches.
    """
    logging.getLogger("pythae").setLevel(logging.ERROR)
    logging.getLogger("pythae.trainers.base_trainer.base_trainer").setLevel(logging.ERROR)
    config = BaseTrainerConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        train_dataloader_num_workers=workers,
        num_epochs=1,
        learning_rate=lr,
        optimizer_cls="Adam",
        optimizer_params={"fused": True},
        no_cuda=True,
    )
    data = torch.from_numpy(x)
    trainer = BaseTrainer(made, BaseDataset(data, torch.zeros(len(x))), training_config=config)
    trainer.prepare_training()
    trainer.callback_handler.callbacks = []
    return lambda: trainer.train_step(1)
