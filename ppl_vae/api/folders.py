"""The folder of a run that starts, or of one that goes on with what it recorded."""

from pathlib import Path

from ppl_vae import gallery
from ppl_vae.api.job import Job
from ppl_vae.api.record import CONFIG
from ppl_vae.store import RunFolder


def earlier_folder(out: str | Path) -> RunFolder | None:
    """Return the folder of a run to go on with, where it got as far as its first write."""
    if not (Path(out) / "manifest.json").exists():
        return None
    folder = RunFolder.open(out)
    return folder if CONFIG in folder.names() else None


def new_folder(out: str | Path, job: Job) -> RunFolder:
    """Start a run folder with the record of a job and the sources of its model and its objective."""
    folder = RunFolder.create(out)
    copies = {"model.py": gallery.source_of(job.program).text.encode()}
    if job.record.objective_file is not None:
        copies["objective.py"] = Path(job.record.objective_file["path"]).read_bytes()
    folder.write({CONFIG: job.record.content()} | copies)
    return folder
