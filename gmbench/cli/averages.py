"""What a person sees of several runs: a line each, then one table a variant, averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gmbench.cli.result import format_estimate, legend, result_table
from gmbench.estimate import Estimate
from gmbench.leaderboard.markdown import number
from gmbench.plugin import TaskCard
from gmbench.record import RECORD, Record


def print_line(console: Console, record: Record, card: TaskCard, folder: Path) -> None:
    """One run: its seed, headline and cost, and where its record is."""
    variant = f"{record.variant} · " if len(card.variants) > 1 else ""
    if record.status == "failed":
        found = f"failed: {record.reason}"
    elif record.headline:
        found = f"{record.headline} {format_estimate(record.metrics[record.headline])}"
    else:
        found = "no headline"
    cost = record.cost
    spent = f"fit {cost.fit_process_seconds:.1f} CPU-s, measure {cost.measure_process_seconds:.1f} CPU-s"
    console.print(f"{variant}seed {record.seed}: {found} · {spent} · {folder / RECORD}", soft_wrap=True)


def print_average(console: Console, records: Sequence[Record], card: TaskCard) -> None:
    """The finished runs of one model on one variant: each metric's mean over seeds and its standard error."""
    first = records[0]
    seeds = "1 seed" if len(records) == 1 else f"mean over {len(records)} seeds"
    console.print(f"\n{first.task} {first.variant} · {first.track} · {first.model} · {seeds}", style="bold")
    table = result_table("", "metric", "mean", "kind", "seeds")
    for key in dict.fromkeys(key for record in records for key in record.metrics):
        found = [record.metrics[key] for record in records if key in record.metrics]
        mean, stderr = mean_over_seeds(found)
        mark = "*" if key == first.headline else ""
        table.add_row(
            mark, Text(key), number(mean, stderr), found[0].kind, str(len(found)), style="bold" if mark else ""
        )
    console.print(table)
    console.print("± one standard error" + (" of the mean over seeds" if len(records) > 1 else ""), style="dim")
    console.print(legend(first, card), style="dim")


def mean_over_seeds(found: Sequence[Estimate]) -> tuple[float, float | None]:
    """The mean and its standard error over seeds; of one seed its own, of an infinite value none."""
    values = [estimate.value for estimate in found]
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, found[0].stderr
    return mean, statistics.stdev(values) / len(values) ** 0.5 if all(map(math.isfinite, values)) else None
