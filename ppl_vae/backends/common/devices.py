"""Names of devices."""

from ppl_vae.errors import UsageError


def parse(name: str) -> tuple[str, int]:
    """Return the kind of a device and its number: auto, cpu, cuda, cuda:1 ...; refuses other names."""
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    return kind, int(index or 0)
