"""Run folders: files that are whole or absent, a manifest that refuses damage, metrics, a lock.

The store writes bytes and does not know what is in them: each backend serialises its own state.
"""

from ppl_vae.store.config import as_yaml, read_config, write_config
from ppl_vae.store.folder import RunFolder

__all__ = ["RunFolder", "as_yaml", "read_config", "write_config"]
