"""Markdown: text that is shown as it is, numbers with the digits their interval supports, and tables."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Sequence

from tabulate import tabulate

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}  # an @ would notify somebody on GitHub
BOUNDS = {"lower_bound": "≥ ", "upper_bound": "≤ "}
"""What stands before a number of that kind."""

_ESCAPES = str.maketrans({c: f"\\{c}" for c in r"\`*_[]|#~$"} | _ENTITIES)


def escape(text: object) -> str:
    """One line of text that Markdown and HTML show as it is."""
    words = " ".join(str(text).split())
    return "".join(c for c in words if c.isprintable()).translate(_ESCAPES)


def link(text: str, target: str) -> str:
    """A link to a relative path."""
    return f"[{escape(text)}]({urllib.parse.quote(target, safe='/+')})"


def number(value: float, uncertainty: float | None = None) -> str:
    """A number to the second digit of its uncertainty; to six significant digits where it is exact, four if unknown.

    Arguments:
        uncertainty: 0 means that the value is exact, None that nothing is known.

    Example:
        >>> number(4.26113, 0.0123), number(0.0000123456, 0.00000012), number(0.000123456), number(20.03712, 0)
        ('4.261 ± 0.012', '(1.235 ± 0.012)e-05', '0.0001235', '20.0371')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if uncertainty is not None and uncertainty <= 1e-9 * abs(value):  # none, or that of rounding errors
        return f"{value:.6g}"
    if uncertainty is None or not math.isfinite(uncertainty):
        return f"{value:.4g}"
    size = math.floor(math.log10(max(abs(value), uncertainty)))
    exponent = size if size < -3 or size > 5 else 0
    scaled, error = value / 10.0**exponent, uncertainty / 10.0**exponent
    # Beyond nine digits the interval is that of rounding errors.
    digits = min(9, max(0, 1 - math.floor(math.log10(error))))
    both = f"{scaled:.{digits}f} ± {error:.{digits}f}"
    return f"({both})e{exponent:+03d}" if exponent else both


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A GitHub table, padded so that the source is legible too; columns whose index is in `right` are right-aligned."""
    align = ["right" if i in right else "left" for i in range(len(header))]
    made: str = tabulate(rows, header, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)
    return made
