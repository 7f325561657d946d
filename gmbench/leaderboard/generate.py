"""`gmbench leaderboard`: one Markdown file a task, made from the records alone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gmbench.errors import UserError
from gmbench.leaderboard.collect import Entry, Row, Table, current, read_entries, tables_of
from gmbench.leaderboard.rank import Ranked, rank
from gmbench.leaderboard.render import escape, failures, markdown_table, other_metrics, quoted_table, ranked_table
from gmbench.plugin import TaskCard
from gmbench.record import write_atomically
from gmbench.registry import Plugin, Registry, discover

INTRODUCTION = (
    "Made by `gmbench leaderboard` from the files in `records/`; do not edit. Intervals are 95 % (over seeds, plus the "
    "noise of the test points that all seeds share). Rows that a paired test does not separate from the best of their "
    "group at 95 % (Holm) share its rank. Reference rows may know the truth and are not ranked; quoted rows were not "
    "measured here."
)


def leaderboards_root() -> Path:
    """The folder with the leaderboards: of the checkout, else inside the installed package."""
    package = Path(__file__).parents[1]
    for root in (package.parent / "leaderboards", package / "leaderboards"):
        if (root / "records").is_dir():
            return root
    raise UserError("no leaderboards are installed here; run this in a checkout of gmbench, or give the folder")


def regenerate(root: Path) -> list[Path]:
    """Writes the leaderboard of every task that has records under `root`; returns the files that changed."""
    changed = []
    for path, text in pages(root).items():
        content = text.encode()
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
            changed.append(path)
    return changed


def pages(root: Path, registry: Registry | None = None) -> dict[Path, str]:
    """The content of every leaderboard by path."""
    registry = registry or discover()
    entries = read_entries(root)
    found: dict[Path, str] = {}
    for name in sorted({entry.record.task for entry in entries}):
        plugin = registry.task(name)
        found[root / f"{name}.md"] = page(plugin, entries, registry)
    return found


def page(plugin: Plugin, entries: list[Entry], registry: Registry) -> str:
    """The leaderboard of one task."""
    card = plugin.card
    assert isinstance(card, TaskCard)
    quoted = published(plugin)
    parts = [f"# {escape(card.name)}", escape(card.summary) + ".", INTRODUCTION]
    if card.notes:
        parts.append(escape(" ".join(card.notes.split())))
    parts.append(_protocol(card))
    for table in tables_of(card, entries, registry):
        parts += _section(table, card, [r for r in quoted if r["variant"] == table.variant], registry)
    return "\n\n".join(parts) + "\n"


def published(plugin: Plugin) -> list[dict[str, Any]]:
    """The quoted rows of a task: model, variant, metric, value, source, note."""
    assert isinstance(plugin.card, TaskCard)
    if not plugin.card.published:
        return []
    path = plugin.folder / plugin.card.published
    try:
        rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8")).get("row", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    for row in rows:
        if missing := {"model", "variant", "metric", "value", "source"} - set(row):
            raise UserError(f"{path}: a row lacks {sorted(missing)[0]!r}")
    return rows


def ranked_rows(table: Table, card: TaskCard, registry: Registry) -> tuple[list[Ranked], list[Row]]:
    """The rows that compete, ranked, and the reference rows, best first. Old versions are in neither."""
    direction = card.metrics[card.headline].direction
    assert direction != "none"
    rows = [row for row in table.rows if row.done and current(row.record, card, registry)]
    models = [row for row in rows if row.record.role == "model"]
    references = [row for row in rows if row.record.role == "reference"]
    sign = 1 if direction == "lower" else -1
    references.sort(key=lambda row: (row.value is None, sign * (row.value or 0.0), row.name))
    return rank(models, direction), references


def _section(table: Table, card: TaskCard, quoted: list[dict[str, Any]], registry: Registry) -> list[str]:
    ranked, references = ranked_rows(table, card, registry)
    if table.track == "smoke":  # a track for tests: whatever comes out of it is not ranked
        ranked = [Ranked(one.row, None, "smoke track") for one in ranked]
    shown = [one.row for one in ranked] + references
    links = {id(row): _link(row) for row in table.rows}
    parts = [f"## {escape(table.variant)} · {table.track}"]
    if ranked:
        parts.append(ranked_table(ranked, card, links))
    if references:
        unranked = [Ranked(row, None) for row in references]
        parts += ["Reference rows (not ranked)", ranked_table(unranked, card, links)]
    if quoted:
        parts += ["Quoted (not measured here)", quoted_table(quoted)]
    if shown:
        parts += ["<details><summary>other metrics</summary>", other_metrics(shown), "</details>"]
    if lines := failures(table):
        parts += ["Failed runs", "\n".join(lines)]
    old = [row for row in table.rows if row.done and not current(row.record, card, registry)]
    if old:
        parts += ["Rows of other versions (not ranked): " + ", ".join(sorted(escape(row.name) for row in old))]
    return parts


def _protocol(card: TaskCard) -> str:
    rows = [[escape(name), escape(str(value))] for name, value in card.protocol.items()]
    metrics = [[escape(name), escape(metric.summary), str(metric.version)] for name, metric in card.metrics.items()]
    return "\n\n".join(
        (
            f"Task version {card.version}.",
            markdown_table(["protocol", ""], rows),
            markdown_table(["metric", "what it is", "version"], metrics),
        )
    )


def _link(row: Row) -> str:
    path = (row.done or row.entries)[0].path
    return f"[{row.record.row_id}](records/{'/'.join(path.parts[-3:])})"
