"""What `check` answers: one finding a rule of the contract."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ppl_vae.errors import ProgramError
from ppl_vae.summaries import Row, Summarised

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes
    ----------
    name : str
        The rule.
    status : str
        "ok", "failed" or "skipped".
    message : str
        One line. Of a failure: the site, network or parameter, the cause and the remedy.
    """

    name: str
    status: str
    message: str


@dataclass(frozen=True, repr=False)
class CheckReport(Summarised):
    """The findings about one program on one data set.

    Attributes
    ----------
    program, data, backend : str
        Names of what was checked.
    findings : tuple of Finding
        In the order in which the rules build on each other.
    """

    program: str
    data: str
    backend: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No rule failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings of rules that failed."""
        return tuple(finding for finding in self.findings if finding.status == FAILED)

    def __getitem__(self, name: str) -> Finding:
        """Return the finding of a rule."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no rule {name!r}: there are {', '.join(finding.name for finding in self.findings)}")

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def raise_if_failed(self) -> None:
        """Do nothing if every rule holds.

        Raises
        ------
        ProgramError
            One line with every failure.
        """
        if not self.ok:
            broken = "; ".join(f"{finding.name}: {finding.message}" for finding in self.failed)
            raise ProgramError(
                f"{self.program} breaks the contract on {self.data} ({self.backend}): {broken}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON."""
        head = {"ok": self.ok, "program": self.program, "data": self.data, "backend": self.backend}
        return head | {"findings": [asdict(finding) for finding in self.findings]}

    def __str__(self) -> str:
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = [f"{one.status:<8}{one.name:<{width}}  {one.message}" for one in self.findings]
        return "\n".join([*lines, self._title()])

    def _title(self) -> str:
        counts = [
            f"{sum(one.status == status for one in self.findings)} {status}"
            for status in (OK, FAILED, SKIPPED)
        ]
        return f"{self.program} on {self.data} ({self.backend}): {', '.join(counts)}"

    def _summary(self) -> tuple[str, list[Row]]:
        return self._title(), [(one.status, one.name, one.message) for one in self.failed]
