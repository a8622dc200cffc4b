"""The folder of a run that starts, or of one that goes on with what it recorded."""

import logging
from pathlib import Path
from typing import Any

from ppl_vae import gallery
from ppl_vae.api.run import CONFIG
from ppl_vae.errors import UsageError
from ppl_vae.store import RunFolder, read_config, write_config

LOG = logging.getLogger(__name__)
# What may change when a run goes on: how long it takes and where it runs, not what it computes.
CHANGES = ("epochs", "max_steps", "patience", "checkpoint_every", "device", "devices")


def earlier_folder(out: str | Path) -> RunFolder | None:
    """Return the folder of a run to go on with, where it got as far as its first write."""
    if not (Path(out) / "manifest.json").exists():
        return None
    folder = RunFolder.open(out)
    return folder if CONFIG in folder.names() else None


def recorded_compile(earlier: RunFolder | None, compile: str) -> str:
    """Return how to compile: as an earlier part of the run did, so that it goes on bit by bit."""
    before = "auto" if earlier is None else read_config(earlier.read(CONFIG))["compile"]
    if (before, compile) == ("on", "off"):
        raise UsageError(
            f"{earlier.path} was trained with compile=on: it cannot go on with off (leave compile away)"
        )
    if (before, compile) == ("off", "on"):  # what asked for it before was told why not
        LOG.warning("%s goes on uncompiled, as it began", earlier.path)
    return compile if before == "auto" else before


def run_folder(
    out: Path, config: dict[str, Any], program: Any, earlier: RunFolder | None
) -> tuple[RunFolder, bool]:
    """Return the run folder, and whether it was made just now."""
    if earlier is not None:
        _same_run(out, read_config(earlier.read(CONFIG)), read_config(write_config(config)))
        return earlier, False
    folder = RunFolder.create(out)
    source = gallery.source_of(program)
    copies = {"model.py": source.text.encode()}
    if "objective_file" in config:
        copies["objective.py"] = Path(config["objective_file"]["path"]).read_bytes()
    folder.write({CONFIG: write_config(config)} | copies)
    return folder, True


def _same_run(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run that computes something else."""
    remedy = "go on with what it records (--resume --out alone), or choose another folder"
    pairs = {part: (before[part], now[part]) for part in ("model", "objective", "backend")}
    # Files may have moved: their content counts.
    pairs |= {part: (before[part]["sha256"], now[part]["sha256"]) for part in ("program", "data")}
    pairs["objective file"] = tuple(one.get("objective_file", {}).get("sha256") for one in (before, now))
    pairs["binarize"] = (before["data"]["binarize"], now["data"]["binarize"])
    for part, (old, new) in pairs.items():
        if old != new:
            raise UsageError(f"{out} was trained with another {part}: {remedy}")
    for name, value in now["training"].items():
        if name not in CHANGES and before["training"].get(name, value) != value:
            raise UsageError(
                f"{out} was trained with {name}={before['training'][name]}, not {value}: {remedy}"
            )
