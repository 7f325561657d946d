"""The records that ship with gmbench, as the rows among which a new result stands."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gmbench.errors import UserError
from gmbench.estimate import Direction, Kind
from gmbench.record import Record, read_record


@dataclass(frozen=True)
class Neighbour:
    """One model's headline, averaged over its seeds.

    Arguments:
        stderr: The standard error of the mean over seeds; of the only seed's estimate where there is one.
        kind: The kind of estimate that the headline is.
    """

    model: str
    role: str
    value: float
    stderr: float | None
    num_seeds: int
    kind: Kind

    def optimistic(self, direction: Direction | Literal["none"]) -> bool:
        """Whether the estimate's bias flatters the model."""
        return self.kind == {"lower": "lower_bound", "higher": "upper_bound", "none": ""}[direction]


def leaderboards_root() -> Path | None:
    """The folder `leaderboards` of the checkout, else the installed package's; None where there is none."""
    package = Path(__file__).parent
    checkout = package.parent
    inside = package / "leaderboards"
    if (checkout / "pyproject.toml").is_file() and (checkout / "leaderboards").is_dir():
        return checkout / "leaderboards"
    return inside if inside.is_dir() else None


def neighbours(task: str, variant: str, track: str, *, task_version: int | None = None) -> list[Neighbour]:
    """Models and reference rows of the shipped records, with their card's config, on one variant and track.

    Arguments:
        task_version: Only records of this version of the task; of any where it is None.
    """
    root = leaderboards_root()
    rows: dict[str, list[Record]] = defaultdict(list)
    for path in sorted((root / "records" / task).glob("*/*.json")) if root else []:
        try:
            record = read_record(path)
        except UserError:
            continue  # `leaderboard --check` names it; a run's own result is shown all the same
        wanted = (record.variant, record.track) == (variant, track) and task_version in (None, record.task_version)
        if wanted and record.card_config and record.status == "done" and record.headline:
            rows[record.row_id].append(record)
    return [summarize(records) for records in rows.values()]


def summarize(records: Sequence[Record]) -> Neighbour:
    """The headline of one model's records on one variant and track, averaged over seeds."""
    estimates = [record.metrics[record.headline] for record in records]
    values = [estimate.value for estimate in estimates]
    stderr = estimates[0].stderr
    if len(values) > 1:
        stderr = statistics.stdev(values) / len(values) ** 0.5 if all(map(math.isfinite, values)) else None
    return Neighbour(
        records[0].model, records[0].role, sum(values) / len(values), stderr, len(values), estimates[0].kind
    )
