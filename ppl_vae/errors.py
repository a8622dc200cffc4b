"""The errors that a user meets: each names its cause and the remedy in one line, and knows its exit code."""


class PplVaeError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns (1: it failed)."""

    exit_code = 1


class UsageError(PplVaeError, ValueError):
    """An impossible or unknown option, program or data name (exit code 2)."""

    exit_code = 2


class DataError(PplVaeError, ValueError):
    """Data that is missing, damaged, of a wrong shape or not finite."""


class ProgramError(PplVaeError):
    """A model or guide that breaks the contract of a declared model."""


class RunError(PplVaeError):
    """A run folder that is missing, damaged or cannot be opened safely."""
