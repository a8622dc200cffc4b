"""What the backends share: sites and traces, terms of the bound, what is computed of them chunk by chunk.

Nothing here imports torch or JAX: arrays are the backend's, and array functions come as `F`.
"""
