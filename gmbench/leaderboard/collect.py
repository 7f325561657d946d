"""From record files to rows: runs that differ in nothing but the seed."""

from __future__ import annotations

import array
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gmbench.errors import UserError
from gmbench.leaderboard.statistics import mean, t_quantile, variance
from gmbench.plugin import ModelCard, TaskCard
from gmbench.record import Record, read_points, read_record
from gmbench.registry import Registry

POINTS_SUFFIX = ".points.f32.gz"


@dataclass(frozen=True)
class Entry:
    """A record and where it lies."""

    record: Record
    path: Path

    @property
    def points_path(self) -> Path:
        return self.path.with_name(self.path.stem + POINTS_SUFFIX)

    @cached_property
    def points(self) -> array.array[float] | None:
        """The headline at every test point, where the task has such values."""
        return read_points(self.points_path) if self.record.points_sha256 else None

    @property
    def value(self) -> float | None:
        """The headline number; None where the run has none."""
        record = self.record
        return record.metrics[record.headline].value if record.headline in record.metrics else None


@dataclass
class Row:
    """The runs of one row over seeds; `name` is the model's plain name only where the config is the card's own."""

    name: str
    entries: list[Entry]
    done: list[Entry] = field(init=False)
    failed: list[Entry] = field(init=False)

    def __post_init__(self) -> None:
        self.entries.sort(key=lambda entry: entry.record.seed)
        self.done = [entry for entry in self.entries if entry.record.status == "done"]
        self.failed = [entry for entry in self.entries if entry.record.status == "failed"]

    @property
    def record(self) -> Record:
        """A record of the row, for what all of them share."""
        return (self.done or self.entries)[0].record

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The headline by seed."""
        return {e.record.seed: e.value for e in self.done if e.value is not None}

    @cached_property
    def value(self) -> float | None:
        """The mean headline over seeds."""
        return mean(list(self.by_seed.values())) if self.by_seed else None

    @cached_property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the mean: spread over seeds, and the noise of the test points they share."""
        values = list(self.by_seed.values())
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return None
        shared = self.shared_stderr()
        return t_quantile(0.95, len(values) - 1) * math.sqrt(variance(values) / len(values) + shared**2)

    def shared_stderr(self) -> float:
        """The standard error that averaging over seeds does not reduce; 0 where a run states none."""
        errors = [e.record.metrics[e.record.headline].stderr or 0.0 for e in self.done if e.value is not None]
        return mean(errors)


@dataclass(frozen=True)
class Table:
    """All rows of one variant on one track."""

    variant: str
    track: str
    rows: list[Row]


def read_entries(root: Path) -> list[Entry]:
    """Every record under `root/records`, in a stable order; UserError names the first that cannot be read."""
    paths = sorted((root / "records").glob("*/*/*.json"))
    return [Entry(read_record(path), path) for path in paths]


def tables_of(task: TaskCard, entries: list[Entry], registry: Registry) -> list[Table]:
    """The tables of a task in the card's order of variants and tracks; rows of other versions say so in their names."""
    by_place: dict[tuple[str, str], dict[str, list[Entry]]] = {}
    for entry in entries:
        record = entry.record
        if record.task == task.name:
            by_place.setdefault((record.variant, record.track), {}).setdefault(record.row_id, []).append(entry)
    known = [variant.name for variant in task.variants]
    tracks = list(task.tracks)

    def place_order(place: tuple[str, str]) -> tuple[int, int, str]:
        variant, track = place
        return (known.index(variant) if variant in known else len(known), tracks.index(track), variant)  # type: ignore[arg-type]

    return [
        Table(*place, [Row(row_name(group[0].record, task, registry), group) for group in by_place[place].values()])
        for place in sorted(by_place, key=place_order)
    ]


def row_name(record: Record, task: TaskCard, registry: Registry) -> str:
    """The model's name, with what sets the row apart from the card's current config and versions."""
    marks = list(_marks(record, task, registry))
    return f"{record.model} ({', '.join(marks)})" if marks else record.model


def current(record: Record, task: TaskCard, registry: Registry) -> bool:
    """Whether the record is of the task's and the model's current versions."""
    return not any("version" in mark for mark in _marks(record, task, registry))


def _marks(record: Record, task: TaskCard, registry: Registry) -> Iterator[str]:
    if record.task_version != task.version:
        yield f"task version {record.task_version}"
    elif record.metric_versions.get(task.headline) != task.metrics[task.headline].version:
        yield f"version {record.metric_versions.get(task.headline)} of the headline metric"
    try:
        card = registry.model(record.model).card
    except UserError:
        return
    assert isinstance(card, ModelCard)
    if record.subject != "run":
        yield record.subject
    elif record.model_version != card.version:
        yield f"version {record.model_version}"
    else:
        _, _, preset = record.model.partition("+")
        if preset and preset not in card.presets:
            yield "no such preset now"
        elif not record.card_config or record.config != card.resolve(task.name, record.track, preset):
            yield f"config {record.row_id[:6]}"
