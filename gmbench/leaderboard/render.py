"""The tables that a reader compares models by: the ranked one of a variant and track, and a track's overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmbench.estimate import Direction
from gmbench.leaderboard.collect import Row, Table
from gmbench.leaderboard.markdown import BOUNDS, escape, link, number, table
from gmbench.leaderboard.naming import model_card
from gmbench.leaderboard.rank import Ranked
from gmbench.leaderboard.statistics import mean
from gmbench.plugin import TaskCard
from gmbench.published import LeftOut, PublishedRow
from gmbench.registry import Registry

ONE_FIT = "†"
LONG = 80  # characters of a reason that would widen its whole column


def ranked_table(ranked: Sequence[Ranked], card: TaskCard, registry: Registry) -> str:
    """The headline table; rows without a rank say why, where that is long below the table."""
    beside = [name for name, metric in card.metrics.items() if metric.beside]
    header = ["rank", "model", "family", _title(card), *map(escape, beside)]
    header += ["estimate", "seeds", "parameters", "fit CPU-s", "samples/s", ""]
    notes: dict[str, int] = {}
    rows = [
        [
            "–" if one.rank is None else str(one.rank),
            escape(one.row.name),
            _family(one.row, registry),
            _headline(one.row),
            *(_beside(one.row, card, name) for name in beside),
            escape("; ".join(filter(None, (_estimator(one.row, card), _reason(one, notes))))),
            _seeds(one.row),
            f"{one.row.record.cost.parameters:,}",
            _cost(one.row),
            _speed(one.row),
            record_link(one.row.done[0].path.parts[-3:], "record"),
        ]
        for one in ranked
    ]
    numbers = range(3, 4 + len(beside))
    made = table(header, rows, right=(0, *numbers, *(numbers.stop + one for one in range(1, 5))))
    lines = [f"({number}) {escape(note)}" for note, number in notes.items()]
    return "\n\n".join([made, *lines])


def overview(ranked: Mapping[str, Sequence[Ranked]], registry: Registry) -> str:
    """The rank and headline of every model on every variant of a track; without a rank where it has none.

    Models that are ranked on more variants come first, then those of better mean rank.

    Arguments:
        ranked: The rows of each variant's table.
    """
    cells: dict[str, dict[str, Ranked]] = {}
    for variant, rows in ranked.items():
        for one in rows:
            if one.row.value is not None:
                cells.setdefault(one.row.name, {})[variant] = one

    def order(name: str) -> tuple[int, float, str]:
        ranks = [one.rank for one in cells[name].values() if one.rank is not None]
        return (-len(ranks), mean(ranks) if ranks else 0.0, name)

    lines = [
        [escape(name), _family(next(iter(cells[name].values())).row, registry)]
        + [_place(cells[name].get(variant)) for variant in ranked]
        for name in sorted(cells, key=order)
    ]
    return table(["model", "family", *map(escape, ranked)], lines)


def quoted_table(rows: Sequence[PublishedRow]) -> str:
    """Published numbers: never ranked, each with its source."""
    cells = [
        [escape(row.model), escape(row.metric), _as_published(row), escape(row.source), escape(row.note)]
        for row in rows
    ]
    return table(["model", "metric", "value", "source", "note"], cells, right=(2,))


def left_out_table(rows: Sequence[LeftOut]) -> str:
    """Models that do not fit a track, each with the measured time of a step."""
    cells = [
        [escape(row.model), f"{row.step_seconds:.3g}", str(row.num_steps), f"{row.minutes:,.0f}", escape(row.note)]
        for row in rows
    ]
    header = ["model", "CPU-seconds a step", "steps", "CPU-minutes, computed", "note"]
    return table(header, cells, right=(1, 2, 3))


def failures(rows: Table) -> str:
    """A line for every failed run, with the reason; empty where none failed."""
    return "\n".join(
        f"- {escape(row.name)}, seed {entry.record.seed}: {escape(entry.record.reason) or 'no reason given'} "
        f"({record_link(entry.path.parts[-3:], 'record')})"
        for row in rows.rows
        for entry in row.failed
    )


def record_link(parts: Sequence[str], text: str) -> str:
    """A link to a record by the last three parts of its path."""
    return link(text, "/".join(("records", *parts)))


def _as_published(row: PublishedRow) -> str:
    """The number with the digits that its source gives: it is not ours to round."""
    return f"{row.value:.12g}" + ("" if row.stderr is None else f" ± {row.stderr:.12g}")


def _headline(row: Row) -> str:
    if row.value is None:
        return "–"
    if row.points_half_width is not None:
        return f"{number(row.value, row.points_half_width)} {ONE_FIT}"
    return number(row.value, row.half_width)


def _beside(row: Row, card: TaskCard, name: str) -> str:
    """The mean over seeds of another metric by the headline's estimator."""
    estimator = row.record.headline.removeprefix(card.headline)
    found = [entry.record.metrics.get(f"{name}{estimator}") for entry in row.done if entry.value is not None]
    values = [one.value for one in found if one is not None]
    return number(mean(values)) if values else "–"


def _reason(one: Ranked, notes: dict[str, int]) -> str:
    """Why there is no rank; what is long goes among the notes."""
    if not one.reason or len(one.reason) <= LONG:
        return one.reason and f"not ranked: {one.reason}"
    return f"not ranked ({notes.setdefault(one.reason, len(notes) + 1)})"


def _title(card: TaskCard) -> str:
    metric = card.metrics[card.headline]
    arrow = {"lower": " ↓", "higher": " ↑", "none": ""}[metric.direction]
    return f"{escape(card.headline)}{arrow}" + (f" ({escape(metric.unit)})" if metric.unit else "")


def _family(row: Row, registry: Registry) -> str:
    card = model_card(row.record, registry)
    return escape(card.family) if card else "–"


def _estimator(row: Row, card: TaskCard) -> str:
    record = row.record
    if record.headline not in record.metrics:
        return ""
    estimate = record.metrics[record.headline]
    subject = record.headline.removeprefix(card.headline).lstrip(".")
    kind = estimate.kind.replace("_", " ")
    direction: Direction | str = card.metrics[card.headline].direction
    if direction in ("lower", "higher") and kind.endswith("bound"):
        kind += ", optimistic" if estimate.optimistic(direction) else ", conservative"
    return f"{subject}: {kind}" if subject else kind


def _place(one: Ranked | None) -> str:
    if one is None or one.row.value is None:
        return "–"
    headline = one.row.record.metrics[one.row.record.headline]
    value = BOUNDS.get(headline.kind, "") + number(one.row.value, one.row.half_width)
    return f"**{one.rank}** · {value}" if one.rank is not None else value


def _seeds(row: Row) -> str:
    """How many seeds have a headline, and of how many where runs failed or lack it."""
    measured, started = len(row.by_seed), len(row.entries)
    return str(measured) if measured == started else f"{measured} of {started}"


def _cost(row: Row) -> str:
    costs = [entry.record.cost for entry in row.done]
    seconds = mean([cost.fit_process_seconds + cost.parents_process_seconds for cost in costs])
    device = row.record.environment.device
    return f"{seconds:.3g}" + ("" if device == "cpu" else f" ({escape(device)})")


def _speed(row: Row) -> str:
    speeds = [e.record.cost.samples_per_second for e in row.done if e.record.cost.samples_per_second is not None]
    return f"{float(f'{mean(speeds):.2g}'):,.10g}" if speeds else "–"
