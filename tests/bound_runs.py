"""A run of a program that is bound already, without training it."""

from ppl_vae import Run
from ppl_vae.api.record import RunRecord
from ppl_vae.api.settings import Settings


def run_of(bound, data, given=None):
    """Return the run of a bound program as if it was trained on data; `given` is the data at hand."""
    record = RunRecord.of(bound.program, data, Settings.of(bound.program, backend=bound.backend))
    return Run(bound, given, record)
