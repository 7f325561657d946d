"""Writing a record and the files beside it: the one way in which runs, external models and samples become results."""

from __future__ import annotations

import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gmbench.measuring import Measured
from gmbench.plugin import TaskCard
from gmbench.record import POINTS, RECORD, Artifact, Costs, Record, pack_points, sha256_of, write_atomically


def write_record(folder: Path, card: TaskCard, measured: Measured, fit_cost: Costs, **about: Any) -> Record:
    """Writes pictures, per-point values and, last, the record into `folder`.

    Arguments:
        card: The task's card.
        measured: What measuring gave; empty for a run that failed.
        fit_cost: What fitting has cost; the cost of measuring is added.
        about: The fields of `Record` that say what was run and where; they differ by subject.
    """
    found = measured.merged
    artifacts = {}
    for name, png in found.pictures.items():
        path = folder / f"{name}.png"
        write_atomically(path, png)
        artifacts[path.name] = Artifact(sha256=sha256_of(path), bytes=len(png))
    points = ""
    if found.per_point is not None:
        write_atomically(folder / POINTS, pack_points(array.array("f", found.per_point.float().tolist())))
        points = sha256_of(folder / POINTS)
    spent = fit_cost.fit_process_seconds + measured.process_seconds
    ceiling = card.tracks[about["track"]].ceiling_minutes * 60
    record = Record(
        task=card.name,
        task_version=card.version,
        metric_versions={name: metric.version for name, metric in card.metrics.items()},
        headline=found.headline,
        metrics=found.estimates,
        unavailable=measured.unavailable,
        points_sha256=points,
        artifacts=artifacts,
        cost=fit_cost.model_copy(
            update={
                "measure_wall_seconds": measured.wall_seconds,
                "measure_process_seconds": measured.process_seconds,
                "samples_per_second": measured.samples_per_second,
                "over_ceiling": spent > ceiling,
            }
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
    )
    write_atomically(folder / RECORD, record.to_json().encode())
    kept = {*artifacts, *([POINTS] if points else [])}
    for path in (folder / POINTS, *folder.glob("*.png")):  # of an earlier record
        if path.name not in kept:
            path.unlink(missing_ok=True)
    return record
