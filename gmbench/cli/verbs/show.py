"""`gmbench show NAME`: the card of a task or a model. Reads manifests, executes no plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmbench.cli.app import Debug, new_app

if TYPE_CHECKING:
    from gmbench.plugin import ModelCard, Paper, TaskCard

app = new_app()


@app.command()
def command(
    name: Annotated[str, typer.Argument(help="A task or a model, by name or by the path of its plugin folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show the card of a task or a model: paper, capabilities, hyper-parameters, protocol, published numbers."""
    from gmbench.plugin import ModelCard
    from gmbench.published import read_published
    from gmbench.registry import discover

    registry = discover()
    plugin = registry.find(name)
    card = plugin.card
    rows = [] if isinstance(card, ModelCard) else read_published(plugin.folder, card)
    if as_json:
        shown = card.model_dump(mode="json") | {"folder": str(plugin.folder)}
        if not isinstance(card, ModelCard):
            shown["published"] = [row.model_dump(mode="json") for row in rows]
        print(json.dumps(shown, indent=2))
        return
    lines = _model_lines(card) if isinstance(card, ModelCard) else _task_lines(card, rows)
    for line in (*_common_lines(card), *lines, "", f"folder: {plugin.folder}"):
        print(line)


def _common_lines(card: ModelCard | TaskCard) -> Iterator[str]:
    yield f"{card.kind} {card.name}, version {card.version}"
    yield card.summary
    if card.paper:
        yield f"paper: {_paper(card.paper)}"
    yield f"licence: {card.licence}"


def _model_lines(card: ModelCard) -> Iterator[str]:
    yield f"family: {card.family}; role: {card.role}"
    yield f"accepts: {', '.join(card.accepts)}" + (f"; only {', '.join(card.only_tasks)}" if card.only_tasks else "")
    yield f"capabilities: {', '.join(card.capabilities)}"
    for name, wanted in card.inputs.items():
        yield f"input {name}: {wanted.model} on {wanted.task}, track {wanted.track}"
    yield from _block("config", card.config)
    for track, values in card.tracks.items():
        yield from _block(f"config, track {track}", values)
    for task, per_task in card.tasks.items():
        yield from _block(f"config on {task}", per_task.config)
        for track, values in per_task.tracks.items():
            yield from _block(f"config on {task}, track {track}", values)
    for name, preset in card.presets.items():
        tasks = f" (on {', '.join(preset.tasks)})" if preset.tasks else ""
        yield from _block(f"preset {card.name}+{name}: {preset.summary}{tasks}", preset.config)
    yield from _prose("tuning", card.tuning)
    yield from _prose("notes", card.notes)


def _task_lines(card: TaskCard, published: list[Any]) -> Iterator[str]:
    yield f"modality: {card.modality}; space: {card.space}"
    yield from _block("protocol", card.protocol)
    yield from ("", "metrics (* the headline)")
    for name, metric in card.metrics.items():
        details = [f"{metric.direction} is better" if metric.direction != "none" else "no direction"]
        details += [metric.unit] if metric.unit else []
        details += [f"needs {', '.join(metric.requires)}"] if metric.requires else []
        yield f"{'*' if metric.headline else ' '} {name}: {metric.summary} ({'; '.join(details)})"
    yield from ("", "variants (* the default)")
    for variant in card.variants:
        yield f"{'*' if variant.name == card.default_variant else ' '} {variant.name}: {', '.join(variant.tracks)}"
    yield from ("", f"tracks (default: {card.default_track})")
    for name, budget in card.tracks.items():
        yield f"  {name}: {budget.summary}"
    for file in card.data:
        yield f"data: {file.path} ({file.licence or 'licence not stated'})"
    if published:
        yield from ("", "published numbers (quoted, never ranked)")
    for row in published:
        note = f"; {row.note}" if row.note else ""
        yield f"  {row.model}, {row.variant}: {row.metric} {row.value:g} ({row.source}{note})"
    yield from _prose("notes", card.notes)


def _block(title: str, values: dict[str, Any]) -> Iterator[str]:
    if values:
        yield from ("", title)
        yield from (f"  {name} = {json.dumps(value)}" for name, value in values.items())


def _prose(title: str, text: str) -> Iterator[str]:
    if text.strip():
        yield from ("", title, *(f"  {line}".rstrip() for line in text.strip().splitlines()))


def _paper(paper: Paper) -> str:
    where = f"arXiv:{paper.arxiv}" if paper.arxiv else paper.url
    return f"{paper.title}. {', '.join(paper.authors)}, {paper.year}" + (f", {where}" if where else "")
