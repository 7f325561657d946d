"""`gmbench list`: the tasks, models, judges and metrics there are. Reads manifests, executes no plugin."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Annotated, Any

import typer

from gmbench.cli.app import Debug, new_app

app = new_app()


@app.command()
def command(
    what: Annotated[str, typer.Argument(help="tasks, models, judges or metrics; all when left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List tasks, models, judges or metrics. Broken manifests are named and skipped."""
    from gmbench.errors import UserError, nearest
    from gmbench.registry import discover

    registry = discover()
    for folder, reason in registry.broken.items():
        print(f"warning: skipped {folder}: {reason}", file=sys.stderr)
    for (kind, name), paths in registry.clashes.items():
        print(f"warning: two {kind} plugins are named {name!r}: {' and '.join(map(str, paths))}", file=sys.stderr)
    listings = {
        "tasks": _tasks(registry),
        "models": _models(registry),
        "judges": _judges(registry),
        "metrics": _metrics(registry),
    }
    if what and what not in listings:
        raise UserError(f"nothing is listed as {what!r}: {nearest(what, listings)}")
    chosen = {what: listings[what]} if what else listings
    if as_json:
        print(json.dumps(listings[what] if what else chosen, indent=2))
        return
    for position, (title, rows) in enumerate(chosen.items()):
        if not what:
            print(("\n" if position else "") + title)
        _print_rows(_shown(title, rows))


def _tasks(registry: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": card.name,
            "modality": card.modality,
            "space": card.space,
            "headline": card.headline,
            "variants": [variant.name for variant in card.variants],
            "summary": card.summary,
        }
        for card in (plugin.card for _, plugin in sorted(registry.tasks.items()))
    ]


def _models(registry: Any) -> list[dict[str, Any]]:
    tasks = [plugin.card for _, plugin in sorted(registry.tasks.items())]
    return [
        {
            "name": card.name,
            "family": card.family,
            "role": card.role,
            "accepts": card.accepts,
            "only_tasks": card.only_tasks,
            "tasks": [task.name for task in tasks if card.applies_to(task)],
            "presets": sorted(card.presets),
            "summary": card.summary,
        }
        for card in (plugin.card for _, plugin in sorted(registry.models.items()))
    ]


def _judges(registry: Any) -> list[dict[str, Any]]:
    return [
        {"name": card.name, "accepts": card.accepts, "weights": sorted(card.weights), "summary": card.summary}
        for card in (plugin.card for _, plugin in sorted(registry.judges.items()))
    ]


def _metrics(registry: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "task": task,
            "headline": metric.headline,
            "direction": metric.direction,
            "requires": metric.requires,
            "summary": metric.summary,
        }
        for task, plugin in sorted(registry.tasks.items())
        for name, metric in plugin.card.metrics.items()
    ]


def _shown(title: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns that are printed: a line each, so what `--json` repeats for every task is said once."""
    if title == "metrics":
        alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            alike.setdefault((row["name"], row["direction"]), []).append(row)
        shown = []
        for (name, direction), found in sorted(alike.items()):
            summary = f": {found[0]['summary']}" if len(found) == 1 else ""
            about = ", ".join(row["task"] for row in found) + summary
            shown.append({"name": name, "direction": direction, "about": about})
        return shown
    hidden = {"variants", "presets", "headline", "tasks", "only_tasks"}
    return [
        {name: value for name, value in row.items() if name not in hidden}
        | ({"accepts": row["only_tasks"]} if row.get("only_tasks") else {})
        for row in rows
    ]


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Columns as wide as they need to be; plain text, since a table of rich would double the start-up time."""
    if not rows:
        print("  none")
        return
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    cells = [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(("", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))).rstrip()
        print(line if len(line) <= room else f"{line[: room - 1]}…")


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
