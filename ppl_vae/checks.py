"""Refusals of single values, each in one wording."""

import difflib
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from ppl_vae import reading
from ppl_vae.errors import UsageError

SEEDS = 2**32  # NumPy, torch and JAX take these alike
COUNTS = 2**31 - 1  # JAX counts in 32 bits
LEVELS = 2**18  # even steps of [0, 1] that single precision tells apart


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise UsageError for what is no whole number of at least `least` and at most `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UsageError(f"{name}={value!r}: give a whole number of at least {least}")
    if most is not None and value > most:
        raise UsageError(f"{name}={value!r}: give a whole number of at most {most}")


def within_memory(name: str, value: int, size: int) -> None:
    """Raise UsageError for a number whose result, of so many bytes in all, cannot be held while it is
    written.
    """
    held = reading.memory() // 2
    if size > held:
        most = value * held // size
        remedy = f"{name} of at most {most}" if most else "fewer rows"
        raise UsageError(
            f"{name}={value}: the result takes {size / 2**30:,.1f} GiB, of which this machine's memory holds "
            f"{held / 2**30:,.1f}: take {remedy}"
        )


def seed(value: Any) -> None:
    """Raise UsageError for what is no seed of all three libraries."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < SEEDS:
        raise UsageError(f"seed={value!r}: a seed is not negative and below {SEEDS}")


def levels(value: Any, of: str = "") -> None:
    """Raise UsageError for what is no number of grey levels."""
    whole_number(f"{of}levels", value, least=2)
    if value > LEVELS:
        raise UsageError(
            f"{of}levels={value}: single precision tells at most {LEVELS} of [0, 1] apart: round to fewer, "
            "or take the numbers as reals (divided, with the likelihood normal)"
        )


def one_of(what: str, value: Any, known: Iterable[str]) -> None:
    """Raise UsageError for a name that is not known."""
    known = tuple(known)
    if value not in known:
        close = near(str(value), known)
        ask = f"did you mean {close}? Choose" if close else "choose"
        raise UsageError(f"unknown {what} {value!r}: {ask} one of {', '.join(known)}")


def options(
    of: str, given: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse an option that a function does not have.

    Parameters
    ----------
    of : str
        The function.
    given, known : iterable of str
    elsewhere : dict, optional
        Where options of other names belong, as they are written there.

    Raises
    ------
    UsageError
    """
    if unknown := sorted(set(given) - set(known)):
        hint, listed = meant(unknown[0], known, elsewhere), ", ".join(sorted(known)) or "none"
        raise UsageError(f"{of} has no option {unknown[0]!r}: {hint} takes {listed}")


def meant(name: str, known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return the subject of what is known, after the nearest name where one is near: did you mean lr? It"""
    elsewhere = elsewhere or {}
    close = near(name, [*known, *elsewhere])
    return f"did you mean {elsewhere.get(close, close)}? It" if close else "it"


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is nearest to one that was given, where one is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def no_name(of: str, name: str, known: Iterable[str]) -> AttributeError:
    """Return the error of a name that is not there, with the nearest one, or else all of them."""
    known = sorted((one for one in known if one[0] != "_"), key=str.lower)
    close = None if name[0] == "_" else near(name, known)
    listed = f"did you mean {close}?" if close else f"it has {', '.join(known)}"
    return AttributeError(f"{of} has no {name!r}: {listed}")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 row, 2 rows."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
