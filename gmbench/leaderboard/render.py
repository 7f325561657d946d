"""Markdown from ranked rows: stable order, as many digits as the interval supports, everything escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

from gmbench.estimate import Direction
from gmbench.leaderboard.collect import Row, Table
from gmbench.leaderboard.rank import Ranked
from gmbench.leaderboard.statistics import mean, variance
from gmbench.plugin import TaskCard

_ESCAPES = str.maketrans({c: f"\\{c}" for c in r"\`*_[]|#~"} | {"<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    return str(text).translate(_ESCAPES)


def number(value: float, half_width: float | None = None) -> str:
    """A number with two digits of its uncertainty, or three significant ones where none is known.

    Example:
        >>> number(4.26113, 0.0123), number(0.000123456)
        ('4.261 ± 0.012', '0.000123')
    """
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if half_width is None or half_width == 0 or math.isinf(half_width):
        plain = f"{value:.3g}" if 1e-4 <= abs(value) < 1e3 or value == 0 else f"{value:.2e}"
        return plain
    digits = 1 - math.floor(math.log10(half_width))
    if digits > 5 or abs(value) >= 1e5:
        return f"{value:.2e} ± {half_width:.1e}"
    digits = max(digits, 0)
    return f"{value:.{digits}f} ± {half_width:.{digits}f}"


def markdown_table(header: list[str], rows: list[list[Any]], right: Iterable[int] = ()) -> str:
    """A GitHub table; columns whose index is in `right` are right-aligned."""
    align = ["right" if i in set(right) else "left" for i in range(len(header))]
    return tabulate(rows, header, tablefmt="github", colalign=align, disable_numparse=True)


def ranked_table(ranked: list[Ranked], card: TaskCard, link: dict[int, str]) -> str:
    """The headline table of rows that may be ranked."""
    metric = card.metrics[card.headline]
    arrow = {"lower": "↓", "higher": "↑", "none": ""}[metric.direction]
    title = f"{escape(card.headline)} {arrow}" + (f" ({metric.unit})" if metric.unit else "")
    header = ["rank", "model", title, "estimate", "seeds", "parameters", "fit CPU-s", "record"]
    rows = [
        [
            "–" if one.rank is None else str(one.rank),
            escape(one.row.name),
            _headline(one.row),
            escape(_estimator(one.row, card) + (f"; not ranked: {one.reason}" if one.reason else "")),
            len(one.row.by_seed) or len(one.row.entries),
            f"{one.row.record.cost.parameters:,}",
            _cost(one.row),
            link[id(one.row)],
        ]
        for one in ranked
    ]
    return markdown_table(header, rows, right=(0, 4, 5, 6))


def other_metrics(rows: list[Row]) -> str:
    """Every number but the headline, averaged over seeds with one standard error of that mean; a line a metric."""
    keys = sorted({key for row in rows for e in row.done for key in e.record.metrics if key != e.record.headline})
    lines = []
    for key in keys:
        found = [(row, [e.record.metrics[key] for e in row.done if key in e.record.metrics]) for row in rows]
        cells = []
        for row, estimates in found:
            if estimates:
                values = [estimate.value for estimate in estimates]
                error = _standard_error(values, [e.stderr for e in estimates])
                marks = {"lower_bound": " (low)", "upper_bound": " (high)"}.get(estimates[0].kind, "")
                cells.append(f"{escape(row.name)} {number(mean(values), error)}{marks}")
        lines.append([escape(key), "; ".join(cells)])
    return markdown_table(["metric", "mean ± one standard error"], lines)


def quoted_table(rows: list[dict[str, Any]]) -> str:
    """Published numbers: never ranked, each with its source."""
    cells = [
        [escape(r["model"]), escape(r["metric"]), f"{r['value']:g}", escape(r["source"]), escape(r.get("note", ""))]
        for r in rows
    ]
    return markdown_table(["model", "metric", "value", "source", "note"], cells, right=(2,))


def failures(table: Table) -> list[str]:
    """A line for every failed run, with the reason."""
    return [
        f"- {escape(row.name)}, seed {entry.record.seed}: {escape(entry.record.reason)}"
        for row in sorted(table.rows, key=lambda row: row.name)
        for entry in row.failed
    ]


def _headline(row: Row) -> str:
    if row.value is None:
        return "–"
    return number(row.value, row.half_width)


def _estimator(row: Row, card: TaskCard) -> str:
    record = row.record
    if record.headline not in record.metrics:
        return ""
    subject = record.headline.removeprefix(card.headline).lstrip(".")
    kind = record.metrics[record.headline].kind.replace("_", " ")
    direction: Direction | str = card.metrics[card.headline].direction
    if direction in ("lower", "higher") and kind.endswith("bound"):
        optimistic = record.metrics[record.headline].optimistic(direction)
        kind += ", optimistic" if optimistic else ", conservative"
    return f"{subject}: {kind}" if subject else kind


def _cost(row: Row) -> str:
    costs = [e.record.cost for e in row.done]
    return f"{mean([c.fit_process_seconds + c.parents_process_seconds for c in costs]):.3g}" if costs else "–"


def _standard_error(values: list[float], errors: list[float | None]) -> float | None:
    if any(math.isinf(value) for value in values):
        return None
    shared = mean([error or 0.0 for error in errors])
    between = variance(values) / len(values) if len(values) > 1 else 0.0
    return math.sqrt(between + shared**2) or None
