"""Data by name, path or array; NumPy out."""

from ppl_vae.data.arrays import of
from ppl_vae.data.batches import batches, num_batches, order
from ppl_vae.data.dataset import Data
from ppl_vae.data.loading import load
from ppl_vae.data.locate import catalogue, fetch

__all__ = ["Data", "batches", "catalogue", "fetch", "load", "num_batches", "of", "order"]
