"""The contract of a program, as rules that anyone's program is checked against.

The rules see NumPy arrays; a backend shows them a bound program through a Probe.
"""

from ppl_vae.contract.report import CheckReport, Finding
from ppl_vae.contract.rules import RULES, Rule, check

__all__ = ["RULES", "CheckReport", "Finding", "Rule", "check"]
