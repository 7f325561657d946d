"""The tables that a person sees after a run: what was measured, what it cost, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmbench.consistency import BEATS_THE_TRUTH, headline_beats_the_truth
from gmbench.estimate import Estimate
from gmbench.leaderboard.markdown import number
from gmbench.plugin import TaskCard
from gmbench.record import RECORD, Record
from gmbench.standing import Neighbour, neighbours, places, summarize

_WIDTH_OF_A_FILE = 160


def console_for(file: TextIO) -> Console:
    """A console that follows the terminal's width, and does not squeeze tables where there is no terminal."""
    console = Console(file=file, highlight=False, markup=False)
    return console if console.is_terminal else Console(file=file, highlight=False, markup=False, width=_WIDTH_OF_A_FILE)


def print_result(console: Console, record: Record, card: TaskCard, folder: Path) -> None:
    """The metrics of one record, the headline marked, then the cost and where the files are."""
    console.print(_title(record), style="bold")
    if record.status == "failed":
        console.print(f"failed: {record.reason}", style="red")
        console.print(f"record: {folder / RECORD}")
        return
    table = result_table("", "metric", "value", "kind", "n", "")
    notes: dict[str, int] = {}  # several metrics often share a note, which would crowd the table
    for key, estimate in record.metrics.items():
        mark = "*" if key == record.headline else ""
        reference = notes.setdefault(estimate.note, len(notes) + 1) if estimate.note else 0
        footnote = f"({reference})" if reference else ""
        cells = (mark, Text(key), format_estimate(estimate), estimate.kind, str(estimate.n), footnote)
        table.add_row(*cells, style="bold" if mark else "")
    console.print(table)
    console.print("± one standard error", style="dim")
    for note, reference in notes.items():
        console.print(f"({reference}) {note}", style="dim")
    for name, reason in record.unavailable.items():
        console.print(f"not measured: {name}: {reason}", style="dim")
    console.print(legend(record, card), style="dim")
    console.print(f"cost: {_cost(record)}")
    if record.subject == "run" and headline_beats_the_truth(record, card):
        console.print(f"note: {record.headline} is {BEATS_THE_TRUTH}; it cannot be submitted", style="red")
    if record.cost.over_ceiling:
        console.print(f"note: slower than the track {record.track} is meant to be", style="yellow")
    console.print(f"record: {folder / RECORD}")
    if record.artifacts:
        console.print(f"pictures: {', '.join(str(folder / name) for name in record.artifacts)}")


def result_table(*columns: str) -> Table:
    """A table of metrics that fits 80 columns: where it is too wide, only keys are wrapped."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    for column in columns:
        right = column in ("value", "mean", "n", "seeds")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "metric", overflow="fold")
    return table


def legend(record: Record, card: TaskCard) -> str:
    """What the marks of a table mean."""
    headline = card.metrics[card.headline]
    better = f"; {headline.direction} is better" if headline.direction != "none" else ""
    unit = f", in {headline.unit}" if headline.unit else ""
    return f"* the headline{unit}{better}" if record.headline else "no headline, so no rank"


def print_neighbours(console: Console, records: Sequence[Record], card: TaskCard) -> None:
    """The headline of `records` (one model, one variant, its seeds) among the records shipped with gmbench."""
    first = records[0]
    if not first.headline:
        return
    own = summarize(records)
    others = neighbours(first.task, first.variant, first.track, apart_from=records)
    direction = card.metrics[card.headline].direction
    console.print(f"\n{card.headline} on {first.task} {first.variant}, track {first.track}", style="bold")
    if not others:
        there = places(first.task)
        more = f"; there are of {', '.join(there)}" if there else ""
        console.print(f"no other records of this variant and track are shipped yet{more}", style="dim")
        return
    rows: list[tuple[Neighbour, bool]] = [(own, True), *((other, False) for other in others)]
    rows.sort(key=lambda row: row[0].value, reverse=direction == "higher")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "model", "value", "seeds", "kind"):
        table.add_column(column, justify="right" if column in ("value", "seeds") else "left")
    for row, mine in rows:
        what = "reference row" if row.role == "reference" else ("optimistic" if row.optimistic(direction) else "")
        style = "bold" if mine else ("dim" if row.role == "reference" else "")
        table.add_row(
            ">" if mine else "", Text(row.model + (" (this run)" if mine else "")),
            number(row.value, row.half_width), str(row.num_seeds), what, style=style,
        )  # fmt: skip
    console.print(table)
    console.print("± half of the 95 % interval of the mean over seeds, as in the leaderboards", style="dim")


def format_estimate(estimate: Estimate) -> str:
    """`4.83 ± 0.02`, with as many digits as the standard error supports; six where the value is exact."""
    exact = estimate.kind == "exact" and estimate.stderr is None
    return number(estimate.value, 0.0 if exact else estimate.stderr)


def _title(record: Record) -> str:
    own = "" if record.card_config or record.subject != "run" else " (not the card's config)"
    return f"{record.task} {record.variant} · {record.track} · {record.model}{own} · seed {record.seed}"


def _cost(record: Record) -> str:
    cost = record.cost
    parts = [
        f"fit {cost.fit_process_seconds:.1f} CPU-s",
        f"measure {cost.measure_process_seconds:.1f} CPU-s",
        f"{cost.steps} steps",
        f"{cost.parameters} parameters",
        f"peak {cost.peak_memory_bytes / 2**20:.0f} MiB",
    ]
    if cost.samples_per_second:
        parts.append(f"{cost.samples_per_second:.3g} samples/s")
    if cost.resumes:
        parts.append(f"{cost.resumes} resumes")
    return ", ".join(parts)
