"""`gmbench show NAME`: the card of a task, a model, a judge or a metric. Reads manifests, executes no plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmbench.cli.app import Debug, new_app

if TYPE_CHECKING:
    from gmbench.plugin import AnyCard, InputCard, JudgeCard, MetricCard, ModelCard, Paper, TaskCard

app = new_app()


@app.command()
def command(
    name: Annotated[str, typer.Argument(help="A task, a model, model+preset, a judge or a metric; or a folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show a card: paper, hyper-parameters by task, protocol, metrics, published numbers, weights."""
    from gmbench.plugin import ModelCard, TaskCard
    from gmbench.published import read_published
    from gmbench.registry import discover

    registry = discover()
    tasks = [task.card for _, task in sorted(registry.tasks.items()) if isinstance(task.card, TaskCard)]
    metrics = {task.name: task.metrics[name] for task in tasks if name in task.metrics}
    if metrics and name not in {**registry.models, **registry.tasks, **registry.judges}:
        if as_json:
            print(json.dumps({task: metric.model_dump(mode="json") for task, metric in metrics.items()}, indent=2))
        for line in () if as_json else _metric_lines(name, metrics):
            print(line)
        return
    plugin = registry.find(name)
    card = plugin.card
    preset = card.preset_of(name) if isinstance(card, ModelCard) else ""
    configs = _configs(card, preset, tasks) if isinstance(card, ModelCard) else {}
    rows = read_published(plugin.folder, card).row if isinstance(card, TaskCard) else []
    if as_json:
        shown = card.model_dump(mode="json") | {"folder": str(plugin.folder)}
        if isinstance(card, TaskCard):
            shown["published"] = [row.model_dump(mode="json") for row in rows]
        if isinstance(card, ModelCard):
            shown["effective"] = configs
        print(json.dumps(shown, indent=2))
        return
    if isinstance(card, ModelCard):
        lines = _model_lines(card, preset, configs)
    else:
        lines = _task_lines(card, rows) if isinstance(card, TaskCard) else _judge_lines(card)
    for line in (*_common_lines(card), *lines, "", f"folder: {plugin.folder}"):
        print(line)


def _common_lines(card: AnyCard) -> Iterator[str]:
    yield f"{card.kind} {card.name}, version {card.version}"
    yield card.summary
    if card.paper:
        yield f"paper: {_paper(card.paper)}"
    yield f"licence: {card.licence}"


def _metric_lines(name: str, metrics: dict[str, MetricCard]) -> Iterator[str]:
    yield f"metric {name}"
    for task, metric in metrics.items():
        yield from ("", f"on {task}" + (", where it is the headline" if metric.headline else ""), f"  {metric.summary}")
        yield f"  {_details(metric)}"
        if metric.null is not None:
            yield f"  the truth has {metric.null:g}"


def _details(metric: MetricCard) -> str:
    details = [f"{metric.direction} is better" if metric.direction != "none" else "no direction"]
    details += [metric.unit] if metric.unit else []
    details += [f"needs {' and '.join(metric.requires).replace('|', ' or ')}"] if metric.requires else []
    return "; ".join(details)


def _configs(card: ModelCard, preset: str, tasks: list[TaskCard]) -> dict[str, dict[str, dict[str, Any]]]:
    """The config with which a run takes place, by task and track, the task's default track first."""
    only = card.presets[preset].tasks if preset else []
    return {
        task.name: {
            track: card.resolve(task.name, track, preset)
            for track in sorted(task.tracks, key=lambda track: track != task.default_track)
        }
        for task in tasks
        if card.applies_to(task) and (not only or task.name in only)
    }


def _model_lines(card: ModelCard, preset: str, configs: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    yield f"family: {card.family}; role: {card.role}"
    yield f"accepts: {', '.join(card.accepts)}" + (f"; only {', '.join(card.only_tasks)}" if card.only_tasks else "")
    yield f"capabilities: {', '.join(card.capabilities)}"
    yield from _inputs("", card.inputs)
    for task, per_task in card.tasks.items():
        yield from _inputs(f" on {task}", per_task.inputs)
    for name, values in card.presets.items():
        tasks = f" (on {', '.join(values.tasks)})" if values.tasks else ""
        title = f"preset {card.name}+{name}: {values.summary}{tasks}"
        yield from _block(title, values.config) if values.config else ("", title)
        yield from _inputs(f" of {card.name}+{name}", values.inputs)
    for task, (default, *others) in ((task, tuple(by_track.items())) for task, by_track in configs.items()):
        track, config = default
        yield from _block(f"config of {card.name}{'+' + preset if preset else ''} on {task}, track {track}", config)
        for other, changed in others:
            unlike = {name: value for name, value in changed.items() if value != config.get(name)}
            yield from _block(f"  on track {other}", unlike, "    ")
    if not configs:
        yield from _block("config", card.config)
    yield from _prose("tuning", card.tuning)
    yield from _prose("notes", card.notes)


def _inputs(where: str, inputs: dict[str, InputCard] | None) -> Iterator[str]:
    """The runs that a model starts from, and how they differ from those of their cards."""
    if inputs == {} and where:
        yield f"inputs{where}: none"
    for name, wanted in (inputs or {}).items():
        place = [f"task {wanted.task}" if wanted.task else "the same task"]
        place += [f"variant {wanted.variant}"] if wanted.variant else []
        place += [f"track {wanted.track}"] if wanted.track else []
        place += ["the same seed" if wanted.seed is None else f"seed {wanted.seed} for every seed"]
        yield from ("", f"input {name}{where}: {wanted.model}, {', '.join(place)}")
        for track, values in (("", wanted.config), *wanted.tracks.items()):
            said = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
            yield from (f"  {f'on track {track}: ' if track else ''}{said}",) if said else ()


def _task_lines(card: TaskCard, published: list[Any]) -> Iterator[str]:
    yield f"modality: {card.modality}; space: {card.space}"
    yield from _block("protocol", card.protocol)
    yield from ("", "metrics (* the headline)")
    for name, metric in card.metrics.items():
        yield f"{'*' if metric.headline else ' '} {name}: {metric.summary} ({_details(metric)})"
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


def _judge_lines(card: JudgeCard) -> Iterator[str]:
    yield f"accepts: {', '.join(card.accepts)}"
    for name, weights in card.weights.items():
        yield from ("", f"weights {name}: {weights.summary}", f"  {weights.file}, SHA-256 {weights.sha256}")
        yield f"  made by: {weights.command}"
    yield from _prose("notes", card.notes)


def _block(title: str, values: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    if values:
        yield from ("", title)
        yield from (f"{indent}{name} = {json.dumps(value)}" for name, value in values.items())


def _prose(title: str, text: str) -> Iterator[str]:
    if text.strip():
        yield from ("", title, *(f"  {line}".rstrip() for line in text.strip().splitlines()))


def _paper(paper: Paper) -> str:
    where = f"arXiv:{paper.arxiv}" if paper.arxiv else paper.url
    return f"{paper.title}. {', '.join(paper.authors)}, {paper.year}" + (f", {where}" if where else "")
