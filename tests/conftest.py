import gc
import os
from pathlib import Path

import pytest

# Before torch and JAX are loaded: two worker processes of one thread each do best on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("MPLBACKEND", "agg")
# Most tests compile the same few small programs: XLA keeps them, for worker and child processes too.
JAX_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(JAX_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# They run a few times each: a quick compilation matters more than quick code.
FLAGS = (
    "backend_optimization_level=0",
    "llvm_disable_expensive_passes=1",
    "cpu_use_fusion_emitters=0",
    "cpu_parallel_codegen_split_count=1",  # parts cost a third more, and the other core has work
)
os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in FLAGS))

# The millions of objects that compilers leave are looked at less often than by default, which takes a tenth
# of the time, and those of the libraries not at all.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish():
    gc.freeze()


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
