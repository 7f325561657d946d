"""Whether a record agrees with itself: its identities, its headline, and the per-point values beside it."""

from __future__ import annotations

import array
import math
import re
from typing import Any

from gmbench.estimate import Estimate
from gmbench.identity import external_identity, run_identity
from gmbench.plugin import NAME_PATTERN, MetricCard, TaskCard
from gmbench.record import Record, short_hash

BEATS_THE_TRUTH = "better than the truth: not a probability distribution, or an error"
_ROUNDING = 1e-5  # of float32 values, relative to their mean size
_ROUNDING_OF_A_NULL = 1e-4  # of float32 log probabilities of some tens of nats, averaged


def identity_of(record: Record) -> dict[str, Any]:
    """What the record's identities are hashes of, the seed apart."""
    model, _, _ = record.model.partition("+")
    if record.subject != "run":
        return external_identity(
            record.subject, record.task, record.task_version, record.variant, record.track, model, record.subject_sha256
        )
    return run_identity(
        task=record.task,
        task_version=record.task_version,
        variant=record.variant,
        track=record.track,
        model=model,
        model_version=record.model_version,
        config=record.config,
        data=record.data_sha256,
        parents=record.parents,
        device="cpu" if record.environment.device == "cpu" else "cuda",
        precision=record.environment.precision,
        threads=record.environment.threads,
    )


def bad_name(record: Record) -> str:
    """Which of the record's names is none that a plugin can have, since names become paths; empty where all are."""
    names = (record.task, *record.model.split("+", 1))
    return next((f"{name!r} is not a plugin name" for name in names if not re.fullmatch(NAME_PATTERN, name)), "")


def contradictions(record: Record) -> list[str]:
    """What in the record contradicts the rest of it, as in one that was changed by hand; no card is asked."""
    identity = identity_of(record)
    fit_id = short_hash({**identity, "seed": record.seed})
    row = {**identity, "parents": record.row_parents} if record.parents else identity
    found = [
        f"{name} is {stated}, and the record's own fields give {computed}"
        for name, stated, computed in (
            ("fit_id", record.fit_id, fit_id),
            ("row_id", record.row_id, short_hash(row)),
            ("record_id", record.record_id, short_hash({"fit": fit_id, "metrics": record.metric_versions})),
        )
        if stated != computed
    ]
    if record.status == "failed" and record.metrics:
        found.append("the run failed, and yet it has metrics")
    if record.headline and record.headline not in record.metrics:
        found.append(f"the headline {record.headline!r} is not among the metrics")
    return found


def points_contradiction(record: Record, points: array.array[float]) -> str:
    """Why the headline cannot be the mean of its values at the test points; empty where it can."""
    if record.headline not in record.metrics:
        return "there are values at test points of no headline"
    stated = record.metrics[record.headline].value
    finite = len(points) > 0 and all(map(math.isfinite, points))
    mean = math.fsum(points) / len(points) if finite else math.inf
    size = math.fsum(map(abs, points)) / len(points) if finite else 0.0
    if stated == mean or abs(stated - mean) <= _ROUNDING * size:
        return ""
    return f"the headline is {stated:.6g}, and its values at the test points have the mean {mean:.6g}"


def beats_the_truth(estimate: Estimate, metric: MetricCard) -> bool:
    """Whether the number is better than the truth's by more than three standard errors: no distribution can be.

    An excess over the truth is a Kullback-Leibler divergence, at least 0. What falls below is a "log probability" that
    is not normalised, or an error of the estimator. An optimistic bound may be better than the truth.
    """
    direction = metric.direction
    if metric.null is None or direction == "none" or estimate.optimistic(direction):
        return False
    if estimate.stderr is None and estimate.kind != "exact":
        return False  # how uncertain it is nobody knows
    gain = metric.null - estimate.value if direction == "lower" else estimate.value - metric.null
    return gain > 3 * (estimate.stderr or 0.0) + _ROUNDING_OF_A_NULL


def headline_beats_the_truth(record: Record, card: TaskCard) -> bool:
    """Whether the record's headline, as measured by the card's versions, is better than that of the truth."""
    metric = card.metrics[card.headline]
    same = (record.task_version, record.metric_versions.get(card.headline)) == (card.version, metric.version)
    return same and record.headline in record.metrics and beats_the_truth(record.metrics[record.headline], metric)
