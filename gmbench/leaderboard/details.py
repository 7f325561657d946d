"""Every number but the ranked one: legible tables out of the keys that records hold, whatever task they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gmbench.estimate import Estimate
from gmbench.leaderboard.collect import Row
from gmbench.leaderboard.markdown import BOUNDS, escape, number, table
from gmbench.leaderboard.render import record_link
from gmbench.leaderboard.statistics import mean, variance
from gmbench.plugin import TaskCard
from gmbench.record import Record

_MANY = 3  # A metric with at least so many keys has a table of its own.
LEGEND = (
    "Here, unlike above, ± is one standard error of the mean over seeds (their spread, and the noise that they share). "
    "≤ and ≥ mark upper and lower bounds."
)


class Key(NamedTuple):
    """A metric's key in two: `nll.gfn.traj20` is of the metric `nll`, with the detail `gfn.traj20`."""

    base: str
    detail: str

    def __str__(self) -> str:
        return f"{self.base}.{self.detail}" if self.detail else self.base


Found = dict[Key, list[Estimate]]


def details(rows: Sequence[Row], card: TaskCard) -> str:
    """Tables of all numbers of `rows`, what could not be measured, and links to all records.

    A metric whose keys name different distributions in different models (`nll.exact`, `nll.gfn.traj20`) gets a line
    a model and distribution; the others get a column a key. What is the same in all rows is said once.
    """
    found = [(row, _estimates(row, card)) for row in rows]
    same = _same_everywhere(found)
    by_distribution = _bases_by_distribution(found, same)
    headlines = {_key(e.record.headline) for row in rows for e in row.done}
    keys = sorted({key for _, estimates in found for key in estimates} - same.keys(), key=_in_order)
    parts = [LEGEND]
    if by_distribution:
        parts.append(_distribution_table(found, by_distribution, same))
    wide = [key for key in keys if key.base not in by_distribution and key not in headlines]
    small = []
    for base in dict.fromkeys(key.base for key in wide):
        own = [key for key in wide if key.base == base]
        if len(own) < _MANY:
            small += own
        else:
            parts += [f"`{base}`", _wide_table(found, own, [escape(key.detail or base) for key in own])]
    if small:
        parts.append(_wide_table(found, small, [escape(key) for key in small]))
    if same:
        values = (f"{escape(key)} = {number(one.value, _standard_error([one]))}" for key, one in sorted(same.items()))
        parts.append(f"The same in every row that has it: {', '.join(values)}.")
    if lacking := list(_lacking(rows, card)):
        parts.append("\n".join(lacking))
    parts.append("\n".join(_records(rows)))
    return "\n\n".join(parts)


def _in_order(key: Key) -> list[tuple[int, str]]:
    """Sorts by the alphabet, and numbers within by their size: d4 before d16."""
    parts = re.split(r"(\d+)", str(key))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _key(text: str) -> Key:
    base, _, detail = text.partition(".")
    return Key(base, detail)


def _estimates(row: Row, card: TaskCard) -> Found:
    """The numbers of a row that the card's versions of the metrics measured."""
    found: Found = {}
    for entry in row.done:
        old = _old_metrics(entry.record, card)
        for text, estimate in entry.record.metrics.items():
            key = _key(text)
            # Which metric made a key that is named after none is not recorded.
            if key.base not in old and (key.base in card.metrics or not old):
                found.setdefault(key, []).append(estimate)
    return found


def _old_metrics(record: Record, card: TaskCard) -> set[str]:
    """The card's metrics of which the record has none, or another version."""
    return {name for name, metric in card.metrics.items() if record.metric_versions.get(name) != metric.version}


def _same_everywhere(found: Sequence[tuple[Row, Found]]) -> dict[Key, Estimate]:
    """Keys that several rows have, with one value over all rows and seeds: a floor, a null."""
    same = {}
    for key in {key for _, estimates in found for key in estimates}:
        having = [estimates[key] for _, estimates in found if key in estimates]
        if len(having) > 1 and len({(one.value, one.stderr) for some in having for one in some}) == 1:
            same[key] = having[0][0]
    return same


def _bases_by_distribution(found: Sequence[tuple[Row, Found]], same: dict[Key, Estimate]) -> list[str]:
    seen: dict[str, set[frozenset[str]]] = {}
    for _, estimates in found:
        keys = [key for key in estimates if key not in same]
        for base in {key.base for key in keys}:
            seen.setdefault(base, set()).add(frozenset(key.detail for key in keys if key.base == base))
    return sorted(base for base, sets in seen.items() if len(sets) > 1)


def _distribution_table(
    found: Sequence[tuple[Row, Found]], bases: Sequence[str], same: dict[Key, Estimate]
) -> str:
    lines = []
    for row, estimates in found:
        details = {key.detail for key in estimates if key.base in bases and key not in same}
        for detail in sorted(details, key=lambda detail: _in_order(Key("", detail))):
            cells = [_cell(estimates.get(Key(base, detail))) for base in bases]
            lines.append([escape(row.name), escape(detail or "–"), *cells])
    header = ["model", "distribution.estimator", *map(escape, bases)]
    return table(header, lines, right=range(2, len(header)))


def _wide_table(found: Sequence[tuple[Row, Found]], keys: Sequence[Key], titles: Sequence[str]) -> str:
    lines = [
        [escape(row.name), *(_cell(estimates.get(key)) for key in keys)]
        for row, estimates in found
        if any(key in estimates for key in keys)
    ]
    return table(["model", *titles], lines, right=range(1, len(keys) + 1))


def _cell(estimates: Sequence[Estimate] | None) -> str:
    if not estimates:
        return "–"
    values = [estimate.value for estimate in estimates]
    return BOUNDS.get(estimates[0].kind, "") + number(mean(values), _standard_error(estimates))


def _standard_error(estimates: Sequence[Estimate]) -> float | None:
    values = [estimate.value for estimate in estimates]
    unknown = any(estimate.stderr is None and estimate.kind != "exact" for estimate in estimates)
    if not all(map(math.isfinite, values)) or (unknown and len(values) == 1):
        return None
    shared = mean([estimate.stderr or 0.0 for estimate in estimates])
    between = variance(values) / len(values) if len(values) > 1 else 0.0
    return math.sqrt(between + shared**2)


def _lacking(rows: Sequence[Row], card: TaskCard) -> Iterable[str]:
    for metric in card.metrics:
        by_reason: dict[str, list[str]] = {}
        for row in rows:
            for reason in sorted({e.record.unavailable[metric] for e in row.done if metric in e.record.unavailable}):
                by_reason.setdefault(reason, []).append(row.name)
        for reason, names in sorted(by_reason.items()):
            yield f"- no {escape(metric)} of {', '.join(map(escape, names))}: {escape(reason)}"
        old = [escape(row.name) for row in rows if any(metric in _old_metrics(e.record, card) for e in row.done)]
        if old:
            yield f"- {escape(metric)} of {', '.join(old)}: what another version of the metric measured is left out"


def _records(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        links = (record_link(entry.path.parts[-3:], str(entry.record.seed)) for entry in row.done)
        yield f"- records of {escape(row.name)} by seed: {' '.join(links)}"
