"""The records that ship with gmbench, as the rows among which a new result stands."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gmbench.errors import UserError
from gmbench.estimate import Direction, Kind
from gmbench.leaderboard.naming import Naming, name_of
from gmbench.plugin import TaskCard
from gmbench.record import Record, read_record
from gmbench.registry import discover


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


def neighbours(task: str, variant: str, track: str) -> list[Neighbour]:
    """Models and reference rows of the shipped records, with their card's config, on one variant and track.

    Only records of the present versions of the task, its headline metric and the models, as in the leaderboards.
    """
    registry = discover()
    if task not in registry.tasks:  # it was given by its path, and no shipped record is of it
        return []
    card = registry.tasks[task].card
    assert isinstance(card, TaskCard)
    root = leaderboards_root()
    rows: dict[tuple[str, Naming], list[Record]] = defaultdict(list)
    for path in sorted((root / "records" / task).glob("*/*.json")) if root else []:
        try:
            record = read_record(path)
        except UserError:
            continue  # `leaderboard --check` names it; a run's own result is shown all the same
        wanted = (record.variant, record.track, record.status) == (variant, track, "done")
        naming = name_of(record, card, registry)
        if wanted and naming.current and record.card_config and record.headline in record.metrics:
            rows[record.row_id, naming].append(record)
    return [replace(summarize(records), model=naming.name) for (_, naming), records in rows.items()]


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
