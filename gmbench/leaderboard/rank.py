"""Ranks that are honest: what cannot be told apart from the best at 95 % shares its rank."""

from __future__ import annotations

import array
import math
from dataclasses import dataclass
from functools import reduce
from operator import add, mul, sub

from gmbench.consistency import BEATS_THE_TRUTH, beats_the_truth
from gmbench.leaderboard.collect import Row
from gmbench.leaderboard.statistics import Part, holm_with_the_best, mean, p_value, variance
from gmbench.plugin import MetricCard

LEVEL = 0.05


@dataclass(frozen=True)
class Ranked:
    """A row with its rank (None: shown, not ranked) and, where there is none, the reason."""

    row: Row
    rank: int | None
    reason: str = ""


def rank(rows: list[Row], metric: MetricCard, headline: str = "") -> list[Ranked]:
    """Ranks rows in groups: the best and all that are not separated from it, then the best of the rest, and so on.

    Each row is compared with the best of its round: paired over the seeds they share, and over the test points where
    the task keeps the headline at each; with Holm's correction over the comparisons of a round, counting that the best
    was chosen after the fact. Rows with one seed or one fit, with an optimistic headline, one that is better than the
    truth's, or none come after the ranked ones.

    Arguments:
        metric: The headline metric's card; its direction is `lower` or `higher`.
        headline: The metric's name on the task's card, to say why a row lacks it.
    """
    sign = 1.0 if metric.direction == "lower" else -1.0
    candidates, others = [], []
    for row in rows:
        reason = _unrankable(row, metric, headline)
        if reason:
            others.append(Ranked(row, None, reason))
        else:
            candidates.append(row)
    candidates.sort(key=lambda row: (sign * _value(row), row.name))
    means: _Means = {}
    ranked: list[Ranked] = []
    while candidates:
        best, *rest = candidates
        adjusted = holm_with_the_best([_p_value(row, best, sign, means) for row in rest])
        place = len(ranked) + 1
        together = [best] + [row for row, p in zip(rest, adjusted, strict=True) if p > LEVEL]
        ranked += [Ranked(row, place) for row in together]
        chosen = {id(row) for row in together}
        candidates = [row for row in candidates if id(row) not in chosen]
    others.sort(key=lambda r: (sign * r.row.value if r.row.value is not None else math.inf, r.row.name))
    return ranked + others


_Means = dict[tuple[int, tuple[int, ...]], "list[float] | None"]


def _p_value(row: Row, best: Row, sign: float, means: _Means) -> float:
    """Two-sided p of equal expected headlines, on paired differences where the rows share seeds.

    The variance of the mean difference is that over the shared seeds plus that over the shared test points, of the
    difference averaged over seeds: what is drawn twice, seeds and points, is uncertain twice, each with its own degrees
    of freedom (`half_width`). Without two shared seeds the rows are compared unpaired.
    """
    shared = tuple(sorted(set(row.by_seed) & set(best.by_seed)))
    paired = len(shared) > 1
    ours = [row.by_seed[seed] for seed in shared] if paired else list(row.by_seed.values())
    theirs = [best.by_seed[seed] for seed in shared] if paired else list(best.by_seed.values())
    if not all(map(math.isfinite, ours + theirs)):
        return 0.0 if mean(ours) != mean(theirs) else 1.0
    difference = mean(ours) - mean(theirs)
    if sign * difference <= 0:  # not worse on the seeds that are compared
        return 1.0
    unpaired_points = [row.shared_part, best.shared_part]
    if paired:
        points = _point_variance(_points(row, shared, means), _points(best, shared, means))
        between = [(variance(list(map(sub, ours, theirs))) / len(shared), len(shared) - 1)]
        return p_value(difference, between + (unpaired_points if points is None else [points]))
    between = [(variance(values) / len(values), len(values) - 1) for values in (ours, theirs)]
    return p_value(difference, between + unpaired_points)


def _point_variance(ours: list[float] | None, theirs: list[float] | None) -> Part | None:
    """Variance of the mean over test points of the difference; None where the points cannot be paired."""
    if ours is None or theirs is None or len(ours) != len(theirs) or len(ours) < 2:
        return None
    difference = list(map(sub, ours, theirs))
    centre = sum(difference) / len(difference)
    centred = [value - centre for value in difference]
    found = sum(map(mul, centred, centred)) / (len(centred) - 1) / len(centred)
    return (found, len(centred) - 1) if math.isfinite(found) else None


def _points(row: Row, seeds: tuple[int, ...], means: _Means) -> list[float] | None:
    """The headline at every test point, averaged over `seeds`; None where a run has no such values."""
    key = (id(row), seeds)
    if key not in means:
        by_seed = {entry.record.seed: entry.points for entry in row.done}
        kept = [points for seed in seeds if (points := by_seed[seed]) is not None]
        complete = len(kept) == len(seeds) and len({len(points) for points in kept}) == 1
        means[key] = _average(kept) if complete else None
    return means[key]


def _average(arrays: list[array.array[float]]) -> list[float]:
    total: list[float] = reduce(lambda a, b: list(map(add, a, b)), arrays[1:], list(arrays[0]))
    return [value / len(arrays) for value in total]


def _unrankable(row: Row, metric: MetricCard, headline: str) -> str:
    if row.value is None:
        why = row.record.unavailable.get(headline)
        return f"no headline: {why}" if why else "no headline"
    estimates = [e.record.metrics[e.record.headline] for e in row.done if e.value is not None]
    assert metric.direction != "none"
    if any(estimate.optimistic(metric.direction) for estimate in estimates):
        return "optimistic estimate"
    if any(beats_the_truth(estimate, metric) for estimate in estimates):
        return BEATS_THE_TRUTH
    if len({e.record.headline for e in row.done if e.value is not None}) > 1:
        return "its seeds have different estimators"
    if row.record.subject != "run":  # its seeds are those of the metrics: one fit, however often it is measured
        return "one fit"
    return "one seed" if len(row.by_seed) < 2 else ""


def _value(row: Row) -> float:
    assert row.value is not None
    return row.value
