"""From record files to rows: runs that differ in nothing but the seed."""

from __future__ import annotations

import array
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gmbench.leaderboard.naming import Naming, name_of
from gmbench.leaderboard.statistics import Part, half_width, mean, variance
from gmbench.plugin import TaskCard
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
    """The runs of one row over seeds.

    Arguments:
        name: The model's plain name only where the config is the card's own; see `naming`.
        current: Whether the records are of the current versions, and may be ranked.
    """

    name: str
    entries: list[Entry]
    current: bool = True
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
        if len(values) < 2 or not all(map(math.isfinite, values)) or self.record.subject != "run":
            return None  # measuring one fit again says nothing of other fits
        return half_width([(variance(values) / len(values), len(values) - 1), self.shared_part])

    @property
    def points_half_width(self) -> float | None:
        """Half the 95 % interval of one fit's headline over test points; None where there are several fits."""
        finite = self.value is not None and math.isfinite(self.value)
        if not finite or self.half_width is not None or len(self.by_seed) > 1 or not self.shared_stderr:
            return None
        return half_width([self.shared_part])

    @property
    def shared_part(self) -> Part:
        """The variance that averaging over seeds does not reduce, known from the test points, or draws, of one run."""
        numbers = [e.record.metrics[e.record.headline].n for e in self.done if e.value is not None]
        return self.shared_stderr**2, max(1, min(numbers, default=1) - 1)

    @cached_property
    def shared_stderr(self) -> float:
        """The standard error that averaging over seeds does not reduce; 0 where a run states none."""
        return mean([e.record.metrics[e.record.headline].stderr or 0.0 for e in self.done if e.value is not None])


@dataclass(frozen=True)
class Table:
    """All rows of one variant on one track."""

    variant: str
    track: str
    rows: list[Row]


def read_entries(root: Path) -> list[Entry]:
    """Every record under `root/records`, in a stable order; UserError names the first that cannot be read."""
    return [read_entry(path) for path in record_paths(root)]


def record_paths(root: Path) -> list[Path]:
    """The record files under `root/records`: `<task>/<model>/<fit_id>.json`."""
    return sorted((root / "records").glob("*/*/*.json"))


def read_entry(path: Path) -> Entry:
    """One record with its place."""
    return Entry(read_record(path), path)


def tables_of(task: TaskCard, entries: list[Entry], registry: Registry) -> list[Table]:
    """The tables of a task in the card's order of variants and tracks."""
    by_place: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.record.task == task.name:
            by_place.setdefault((entry.record.variant, entry.record.track), []).append(entry)
    variants, tracks = [variant.name for variant in task.variants], list(map(str, task.tracks))

    def order(place: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
        known = (names.index(name) if name in names else len(names)
                 for names, name in zip((variants, tracks), place, strict=True))  # fmt: skip
        return (next(known), next(known), place)

    return [Table(*place, _rows(by_place[place], task, registry)) for place in sorted(by_place, key=order)]


def _rows(entries: list[Entry], task: TaskCard, registry: Registry) -> list[Row]:
    groups: dict[tuple[str, Naming], list[Entry]] = {}
    for entry in entries:
        # Part of a row may have been measured again by a newer headline metric: the name tells the parts apart.
        naming = name_of(entry.record, task, registry)
        groups.setdefault((entry.record.row_id, naming), []).append(entry)
    times = Counter(naming.name for _, naming in groups)
    rows = []
    for (row_id, naming), group in groups.items():
        name, where = naming.name, group[0].record.environment
        if times[name] > 1:  # the device, the threads or the data differ
            name += f" [{where.device}, threads {where.threads}, {where.precision}, {row_id[:6]}]"
        rows.append(Row(name, group, naming.current))
    return sorted(rows, key=lambda row: row.name)
