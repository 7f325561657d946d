"""The records that ship with gmbench, as the rows among which a new result stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gmbench.errors import UserError
from gmbench.estimate import Direction, Kind
from gmbench.leaderboard.collect import Entry, Row, read_entry, tables_of
from gmbench.plugin import TaskCard
from gmbench.record import Record
from gmbench.registry import discover


@dataclass(frozen=True)
class Neighbour:
    """One model's headline, averaged over its seeds as in the leaderboards.

    Arguments:
        half_width: Half the 95 % interval of the mean; None where there is one seed, or one fit.
        kind: The kind of estimate that the headline is.
    """

    model: str
    role: str
    value: float
    half_width: float | None
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


def neighbours(task: str, variant: str, track: str, *, apart_from: Sequence[Record] = ()) -> list[Neighbour]:
    """Models and reference rows of the shipped records, with their card's config, on one variant and track.

    Only records of the present versions of the task, its headline metric and the models, as in the leaderboards.

    Arguments:
        apart_from: Records that stand beside the result, so that none of these runs is counted a second time.
    """
    registry = discover()
    root = leaderboards_root()
    if task not in registry.tasks or root is None:  # a task given by its path has no shipped records
        return []
    card = registry.tasks[task].card
    assert isinstance(card, TaskCard)
    shown = {record.fit_id for record in apart_from}
    entries = []
    for entry in _shipped(root, task):
        record = entry.record
        same = (record.task, record.variant, record.track) == (task, variant, track)
        if same and record.card_config and record.fit_id not in shown:
            entries.append(entry)
    rows = [row for table in tables_of(card, entries, registry) for row in table.rows if row.current]
    return [_neighbour(row) for row in rows if row.value is not None]


def places(task: str) -> list[str]:
    """The variants, each with its tracks, of which there are shipped records of a task."""
    root = leaderboards_root()
    found: dict[str, dict[str, None]] = {}
    for entry in _shipped(root, task) if root else ():
        found.setdefault(entry.record.variant, {})[entry.record.track] = None
    return [f"{variant} ({', '.join(tracks)})" for variant, tracks in found.items()]


def _shipped(root: Path, task: str) -> Iterator[Entry]:
    for path in sorted((root / "records" / task).glob("*/*.json")):
        # `leaderboard --check` names one that cannot be read; a run's own result is shown all the same
        with contextlib.suppress(UserError):
            yield read_entry(path)


def summarize(records: Sequence[Record]) -> Neighbour:
    """The headline of one model's records on one variant and track, averaged over seeds."""
    return _neighbour(Row(records[0].model, [Entry(record, Path()) for record in records]))


def _neighbour(row: Row) -> Neighbour:
    measured = [entry.record for entry in row.done if entry.value is not None]
    assert row.value is not None
    kind = measured[0].metrics[measured[0].headline].kind
    return Neighbour(row.name, row.record.role, row.value, row.half_width, len(row.by_seed), kind)
