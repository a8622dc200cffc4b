"""The rules of the contract, in the order in which they build on each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ppl_vae.contract import drawing, parameters, parity, rows, structure, values
from ppl_vae.contract.case import Case
from ppl_vae.contract.probe import BrokenRule, Maker, NotApplicable, ProgramFailure
from ppl_vae.contract.report import FAILED, OK, SKIPPED, CheckReport, Finding
from ppl_vae.data import Data
from ppl_vae.errors import UsageError
from ppl_vae.program import PlainProgram, Program


@dataclass(frozen=True)
class Rule:
    """A rule of the contract.

    Attributes
    ----------
    name : str
    check : callable
        Returns what it saw, in one line; raises BrokenRule, ProgramFailure or NotApplicable.
    needs : tuple of str
        Rules that must hold for this one to mean anything.
    explained_by : tuple of str
        Rules whose failure is the cause where both fail.
    """

    name: str
    check: Callable[[Case], str]
    needs: tuple[str, ...] = ()
    explained_by: tuple[str, ...] = ()


RULES = (
    Rule("fields", structure.fields),
    Rule("networks", structure.networks, ("fields",)),
    Rule("independence", structure.independence, ("networks",)),
    Rule("batch", structure.batch, ("networks",)),
    Rule("sites", structure.sites, ("batch",)),
    Rule("plate", structure.plate, ("sites",)),
    Rule("shapes", structure.shapes, ("plate",)),
    Rule("support", values.support, ("shapes",)),
    Rule("finite", values.finite, ("shapes",), explained_by=("support",)),
    Rule("seeds", values.seeds, ("finite",)),
    Rule("draws", values.draws, ("sites",)),
    Rule("rows", rows.rows, ("seeds",)),
    Rule("batch sizes", rows.batch_sizes, ("rows",)),
    Rule("particles", rows.particles, ("rows",)),
    Rule("parameters", parameters.parameters, ("finite", "draws")),
    Rule("entries", drawing.entries, ("batch sizes",)),
    Rule("prior", drawing.prior, ("finite",), explained_by=("entries",)),
    Rule("decoding", drawing.decoding, ("prior", "seeds"), explained_by=("entries",)),
    Rule("bound", values.bound, ("particles", "independence")),
    Rule("parity", parity.parity, ("seeds",), explained_by=("support",)),
)


def check(
    program: Program | PlainProgram, data: Data, makers: Mapping[str, Maker], backend: str, seed: int = 0
) -> CheckReport:
    """Check a program on data against every rule of the contract.

    Parameters
    ----------
    program : Program or PlainProgram
    data : Data
        Needs a split "train"; a few dozen of its rows are used.
    makers : dict of str to Maker
        By backend: the one to check, and the twin where it is installed.
    backend : str
    seed : int
        Of weights, draws and the choice of rows.
    """
    if backend not in makers:
        raise UsageError(f"the backend {backend!r} is not among {', '.join(makers)}")
    case = Case(program, data, makers, backend, seed)
    findings: dict[str, Finding] = {}
    try:
        for rule in RULES:
            if rule.name not in findings:
                findings |= {finding.name: finding for finding in _apply(rule, case, findings)}
    finally:
        case.close()
    name = getattr(program, "name", type(program).__name__)
    return CheckReport(name, data.name, backend, tuple(findings[rule.name] for rule in RULES))


def _apply(rule: Rule, case: Case, findings: Mapping[str, Finding]) -> list[Finding]:
    blocked = [name for name in rule.needs if _blocks(findings[name])]
    if blocked:
        return [Finding(rule.name, SKIPPED, f"needs {blocked[0]!r}")]
    try:
        return [Finding(rule.name, OK, rule.check(case))]
    except NotApplicable as reason:
        return [Finding(rule.name, SKIPPED, str(reason))]
    except (BrokenRule, ProgramFailure) as broken:
        causes = [name for name in rule.explained_by if findings[name].status == FAILED]
        return _failures(rule.name, broken, causes)


def _failures(name: str, broken: BrokenRule | ProgramFailure, causes: list[str]) -> list[Finding]:
    owner = getattr(broken, "rule", None) or name
    if causes:
        return [Finding(name, SKIPPED, f"needs {causes[0]!r}")]
    findings = [Finding(owner, FAILED, str(broken))]
    return findings if owner == name else [*findings, Finding(name, SKIPPED, f"needs {owner!r}")]


def _blocks(finding: Finding) -> bool:
    return finding.status == FAILED or (finding.status == SKIPPED and finding.message.startswith("needs "))
