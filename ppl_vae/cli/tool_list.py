"""Show the gallery: models, scripts and recipes."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import gallery
from ppl_vae.cli import arguments


def parser() -> ArgumentParser:
    """Return the options."""
    return arguments.new(__doc__, "list")


def main(options: Any) -> dict[str, Any]:
    """Print the table and return it."""
    models = gallery.names()
    width = max(len(entry.name) for entry in models) if models else 0
    lines = [f"{entry.name:<{width}}  {'+'.join(entry.backends):<12}  {entry.summary}" for entry in models]
    folders = {root / "inference" / "recipes" for root in (Path.cwd(), gallery.packaged())}
    recipes = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    found = {"models": [one._asdict() for one in models], "scripts": gallery.scripts(), "recipes": recipes}
    return found | {"text": "\n".join(lines)}
