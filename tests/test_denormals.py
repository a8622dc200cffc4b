"""Denormal numbers cost nothing while the library works, in any thread, and are back afterwards."""

import pytest
import torch

from ppl_vae.backends.pyro.denormals import _region, flushed


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(_region() is None, reason="another OpenMP: each thread keeps its own setting")
@pytest.mark.usefixtures("two_threads")
def test_denormals_are_zero_in_threads_that_were_at_work_before():
    # Large enough for torch to share it out; a tenth of the least normal number.
    small = torch.full((2**20,), torch.finfo(torch.float32).tiny)
    assert torch.count_nonzero(small * 0.1) == len(small)
    with flushed():
        assert torch.count_nonzero(small * 0.1) == 0
        with flushed():
            pass
        assert torch.count_nonzero(small * 0.1) == 0
    assert torch.count_nonzero(small * 0.1) == len(small)
