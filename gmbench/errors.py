"""The errors that a person sees: one line that says what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GmbenchError(Exception):
    """Base of all expected errors; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(GmbenchError):
    """The request cannot be carried out as it was made (exit code 2)."""

    exit_code = 2


class RunFailed(GmbenchError):
    """A run ended without a result, for a reason that its record states (exit code 1)."""


class MissingCapability(GmbenchError):
    """A fitted model, as configured, cannot do what was asked of it; the message says why."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase that names what `name` may have meant, and everything that exists unless that is long and not needed.

    Example:
        >>> nearest("isnig", ["ising", "ptb"])
        "did you mean 'ising'? known: ising, ptb"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"known: {', '.join(known)}" if known else "none are known"
    if close:
        return f"did you mean {close[0]!r}? {listing}" if len(known) <= 8 else f"did you mean {close[0]!r}?"
    return listing
