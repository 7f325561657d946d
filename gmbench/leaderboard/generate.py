"""`gmbench leaderboard`: one Markdown file a task, made from the records alone."""

from __future__ import annotations

from pathlib import Path

from gmbench.errors import UserError
from gmbench.leaderboard.collect import Entry, Table, read_entries, record_paths, tables_of
from gmbench.leaderboard.details import details
from gmbench.leaderboard.markdown import escape, table
from gmbench.leaderboard.missing import missing_plugins
from gmbench.leaderboard.rank import Ranked, rank
from gmbench.leaderboard.render import failures, left_out_table, overview, quoted_table, ranked_table
from gmbench.plugin import TaskCard
from gmbench.published import Published, read_published
from gmbench.record import write_atomically
from gmbench.registry import Plugin, Registry, discover

INTRODUCTION = (
    "Made by `gmbench leaderboard` from the files in `records/`; do not edit. Intervals are 95 % (over seeds, plus the "
    "noise of the test points that all seeds share; of one fit, marked †, over those alone). Rows that a test, paired "
    "over seeds and test points, does not separate from the best of their group at 95 % (Holm, over all pairs of the "
    "group) share its rank; so intervals may overlap where ranks differ. Reference rows may know the truth "
    "and are not ranked; quoted rows were not measured here. What bounds a table from both sides, the truth itself and "
    "models that learn next to nothing, are rows of its second table, 'Reference rows'; floors and "
    "nulls of the other numbers stand below those."
)
PLUS_MINUS = (
    "± is half of the 95 % interval of the mean over seeds; with † of one fit over test points, which says nothing of "
    "other fits."
)
ORDER = (
    "Rank in bold, the headline beside it with half of its 95 % interval; where there is no rank, the variant's table "
    "says why. ≤ and ≥ mark upper and lower bounds. Models ranked on more variants come first, then those of better "
    "mean rank."
)
UNRANKED_TRACK = "smoke"


def regenerate(root: Path) -> list[Path]:
    """Writes the leaderboard of every task that has records under `root`; returns the files that changed.

    Raises:
        UserError: A record cannot be read, or a plugin is not found: without its card a row would lose its family, and
            whether its config is the card's own.
    """
    entries, registry = read_entries(root), discover()
    if missing := missing_plugins(entries, registry):
        raise UserError(f"no table was written: {'; '.join(missing.values())}")
    changed = []
    for path, text in pages(root, entries, registry).items():
        content = text.encode()
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
            changed.append(path)
    return changed


def summary(root: Path) -> str:
    """One line on what is there, where all of it is up to date."""
    paths = record_paths(root)
    tasks = {path.parent.parent.name for path in paths}
    counts = [f"{num} {what}{'' if num == 1 else 's'}" for num, what in ((len(tasks), "table"), (len(paths), "record"))]
    return f"{', '.join(counts)}: up to date" if paths else "no records yet"


def pages(root: Path, entries: list[Entry], registry: Registry) -> dict[Path, str]:
    """The content of every leaderboard by path."""
    return {
        root / f"{name}.md": page(_task(name, registry), entries, registry)
        for name in sorted({entry.record.task for entry in entries})
    }


def page(plugin: Plugin, entries: list[Entry], registry: Registry) -> str:
    """The leaderboard of one task."""
    card = plugin.card
    assert isinstance(card, TaskCard)
    quoted = read_published(plugin.folder, card)
    parts = [f"# {escape(card.name)}", escape(card.summary).rstrip(".") + ".", INTRODUCTION]
    if card.notes:
        parts.append(escape(card.notes))
    parts += ["<details><summary>protocol and metrics</summary>", _protocol(card), "</details>"]
    tables = tables_of(card, entries, registry)
    ranked = {(one.variant, one.track): ranked_rows(one, card) for one in tables}
    for track in card.tracks:
        columns = {one.variant: ranked[one.variant, one.track] for one in tables if one.track == track}
        if track != UNRANKED_TRACK and len(columns) > 1:
            parts += [f"## Overview · {track}", ORDER, overview(columns, registry)]
    for one in tables:
        parts += _section(one, ranked[one.variant, one.track], card, _beside(quoted, one), registry)
    return "\n\n".join(parts) + "\n"


def ranked_rows(rows: Table, card: TaskCard) -> list[Ranked]:
    """The rows that compete: current models with a finished run, ranked unless the track is for tests."""
    metric = card.metrics[card.headline]
    models = [row for row in rows.rows if row.done and row.current and row.record.role == "model"]
    if metric.direction == "none":
        return [Ranked(row, None, "the headline has no direction") for row in models]
    ranked = rank(models, metric, card.headline)
    if rows.track == UNRANKED_TRACK:
        return [Ranked(one.row, None, "a track for tests") for one in ranked]
    return ranked


def reference_rows(rows: Table, card: TaskCard) -> list[Ranked]:
    """The reference rows, best first, without ranks."""
    sign = -1 if card.metrics[card.headline].direction == "higher" else 1
    found = [row for row in rows.rows if row.done and row.current and row.record.role == "reference"]
    found.sort(key=lambda row: (row.value is None, sign * (row.value or 0.0), row.name))
    return [Ranked(row, None) for row in found]


def _beside(quoted: Published, rows: Table) -> Published:
    """What stands beside a table: quotations of its variant, and what was left out of its track."""
    if rows.track == UNRANKED_TRACK:
        return Published()
    return Published(
        row=[row for row in quoted.row if row.variant == rows.variant],
        left_out=[row for row in quoted.left_out if (row.variant, row.track) == (rows.variant, rows.track)],
    )


def _section(
    rows: Table, ranked: list[Ranked], card: TaskCard, quoted: Published, registry: Registry
) -> list[str]:
    references = reference_rows(rows, card)
    parts = [f"## {escape(rows.variant)} · {escape(rows.track)}"]
    if ranked:
        parts.append(ranked_table(ranked, card, registry))
    if references:
        parts += ["Reference rows (not ranked)", ranked_table(references, card, registry)]
    if ranked or references:
        parts.append(PLUS_MINUS)
    if quoted.row:
        parts += ["Quoted (not measured here)", quoted_table(quoted.row)]
    if quoted.left_out:
        parts += ["Not run (the time of a step is measured, that of all is computed)", left_out_table(quoted.left_out)]
    if lines := failures(rows):
        parts += ["Failed runs", lines]
    old = [escape(row.name) for row in rows.rows if row.done and not row.current]
    if old:
        parts.append("Of other versions, and not ranked: " + ", ".join(old))
    if shown := [one.row for one in (*ranked, *references)]:
        parts += ["<details><summary>all other numbers, and every record</summary>", details(shown, card), "</details>"]
    return parts


def _protocol(card: TaskCard) -> str:
    rows = [[escape(name), escape(value)] for name, value in card.protocol.items()]
    metrics = [[escape(name), escape(metric.summary), str(metric.version)] for name, metric in card.metrics.items()]
    return "\n\n".join(
        (
            f"Task version {card.version}.",
            table(["protocol", ""], rows),
            table(["metric", "what it is", "version"], metrics),
        )
    )


def _task(name: str, registry: Registry) -> Plugin:
    plugin = registry.task(name)
    if plugin.card.name != name:  # a path finds a plugin too, and the name becomes a file's
        raise UserError(f"records name a task {name!r}, which is not a name")
    return plugin
