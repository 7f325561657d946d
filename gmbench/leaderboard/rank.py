"""Ranks that are honest: what cannot be told apart from the best at 95 % shares its rank."""

from __future__ import annotations

import array
import math
from dataclasses import dataclass
from operator import sub

from gmbench.estimate import Direction
from gmbench.leaderboard.collect import Row
from gmbench.leaderboard.statistics import holm, mean, two_sided_t, variance

LEVEL = 0.05


@dataclass(frozen=True)
class Ranked:
    """A row with its rank (None: shown, not ranked) and, where there is none, the reason."""

    row: Row
    rank: int | None
    reason: str = ""


def rank(rows: list[Row], direction: Direction) -> list[Ranked]:
    """Ranks rows in groups: the best and all that are not separated from it, then the best of the rest, and so on.

    Each row is compared with the best of its round: paired over the seeds they share, and over the test points where
    the task keeps the headline at each; Holm's correction over the comparisons of a round. Rows with one seed, with
    an optimistic headline or with none are listed after the ranked ones.
    """
    sign = 1.0 if direction == "lower" else -1.0
    candidates, others = [], []
    for row in rows:
        reason = _unrankable(row, direction)
        if reason:
            others.append(Ranked(row, None, reason))
        else:
            candidates.append(row)
    candidates.sort(key=lambda row: (sign * _value(row), row.name))
    ranked: list[Ranked] = []
    while candidates:
        best, *rest = candidates
        adjusted = holm([p_value(row, best) for row in rest])
        place = len(ranked) + 1
        together = [best] + [row for row, p in zip(rest, adjusted, strict=True) if p > LEVEL]
        ranked += [Ranked(row, place) for row in together]
        chosen = {id(row) for row in together}
        candidates = [row for row in candidates if id(row) not in chosen]
    others.sort(key=lambda r: (sign * r.row.value if r.row.value is not None else math.inf, r.row.name))
    return ranked + others


def p_value(row: Row, best: Row) -> float:
    """Two-sided p of equal expected headlines, by Student's t on paired differences.

    The variance of the mean difference is that over the shared seeds plus that over the shared test points, of the
    difference averaged over seeds: what is drawn twice, seeds and points, is uncertain twice. Degrees of freedom are
    the seeds' alone, which is conservative. Without two shared seeds the rows are compared unpaired.
    """
    shared = sorted(set(row.by_seed) & set(best.by_seed))
    if len(shared) < 2:
        return _unpaired(row, best)
    differences = [row.by_seed[seed] - best.by_seed[seed] for seed in shared]
    if not all(map(math.isfinite, differences)):
        return 0.0 if _value(row) != _value(best) else 1.0
    total = variance(differences) / len(shared) + _point_variance(row, best, shared)
    return _t_test(mean(differences), total, len(shared) - 1)


def _unpaired(row: Row, best: Row) -> float:
    a, b = list(row.by_seed.values()), list(best.by_seed.values())
    if not all(map(math.isfinite, a + b)):
        return 0.0 if _value(row) != _value(best) else 1.0
    total = variance(a) / len(a) + variance(b) / len(b) + row.shared_stderr() ** 2 + best.shared_stderr() ** 2
    return _t_test(mean(a) - mean(b), total, min(len(a), len(b)) - 1)


def _t_test(difference: float, squared_error: float, df: int) -> float:
    if squared_error == 0:
        return 1.0 if difference == 0 else 0.0
    return two_sided_t(difference / math.sqrt(squared_error), df)


def _point_variance(row: Row, best: Row, seeds: list[int]) -> float:
    """Variance of the mean over test points of the difference averaged over seeds; 0 where there are no points."""
    total: list[float] = []
    for ours, theirs in zip(_chosen(row, seeds), _chosen(best, seeds), strict=True):
        if ours is None or theirs is None or len(ours) != len(theirs):
            return 0.0
        step = map(sub, ours, theirs)
        total = [a + b for a, b in zip(total, step, strict=True)] if total else list(step)
    if len(total) < 2:
        return 0.0
    return variance(total) / len(total) / len(seeds) ** 2


def _chosen(row: Row, seeds: list[int]) -> list[array.array[float] | None]:
    points = {entry.record.seed: entry.points for entry in row.done}
    return [points[seed] for seed in seeds]


def _unrankable(row: Row, direction: Direction) -> str:
    if row.value is None:
        reasons = set(row.record.unavailable.values()) if row.done else {"failed"}
        return "no headline: " + "; ".join(sorted(reasons)[:1])
    if len(row.by_seed) < 2:
        return "one seed"
    if any(e.record.metrics[e.record.headline].optimistic(direction) for e in row.done if e.value is not None):
        return "optimistic estimate"
    return ""


def _value(row: Row) -> float:
    assert row.value is not None
    return row.value
