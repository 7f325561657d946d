"""Whether a run folder holds what its record says: schema, identity, the cards it names, and the files beside it."""

from __future__ import annotations

from pathlib import Path

from gmbench.consistency import (
    BEATS_THE_TRUTH,
    bad_name,
    contradictions,
    headline_beats_the_truth,
    points_contradiction,
)
from gmbench.errors import UserError
from gmbench.plugin import ModelCard, TaskCard
from gmbench.record import POINTS, RECORD, Record, read_points, read_record, sha256_of
from gmbench.registry import Plugin, Registry
from gmbench.source import source_digest


def validate_run(folder: Path, registry: Registry) -> Record:
    """The record of a run folder, if it can stand in the leaderboards.

    Raises:
        UserError: The first thing that is wrong, in one line.
    """
    if not folder.is_dir():
        raise UserError(f"no run folder {folder}")
    record = read_record(folder / RECORD)
    if problem := next(iter(problems(record, registry)), ""):
        raise UserError(f"{folder / RECORD}: {problem}")
    for name, artifact in record.artifacts.items():
        if Path(name).name != name:
            raise UserError(f"{folder / RECORD}: artifact {name!r} is not a plain file name")
        _require_file(folder / name, artifact.sha256)
    if record.points_sha256:
        _require_file(folder / POINTS, record.points_sha256)
        if problem := points_contradiction(record, read_points(folder / POINTS)):
            raise UserError(f"{folder / RECORD}: {problem}")
    return record


def problems(record: Record, registry: Registry) -> list[str]:
    """What is wrong with a record taken by itself and against the plugins that discovery found."""
    if problem := bad_name(record) or _missing_plugin(record, registry):
        return [problem]
    return contradictions(record) + _against_task(record, registry) + _against_model(record, registry)


def _against_task(record: Record, registry: Registry) -> list[str]:
    plugin = registry.task(record.task)
    card = plugin.card
    assert isinstance(card, TaskCard)
    if card.argument:
        return [f"{card.name} is about a {card.argument} of the user's own: nobody else has it, so it makes no row"]
    if record.task_version != card.version:
        return [f"made for version {record.task_version} of {card.name}, which is at version {card.version}"]
    try:
        variant = card.variant(record.variant)
    except UserError as error:
        return [str(error)]
    found = []
    if variant.name != record.variant:
        found.append(f"the variant is written {record.variant!r} where the card has {variant.name!r}")
    if record.track not in variant.tracks:
        found.append(f"the variant {variant.name} has no track {record.track}")
    versions = {name: metric.version for name, metric in card.metrics.items()}
    if unlike := sorted(name for name, _ in versions.items() ^ record.metric_versions.items()):
        found.append(f"the card and the record differ in the metrics {', '.join(dict.fromkeys(unlike))}")
    if record.headline and record.headline.partition(".")[0] != card.headline:
        found.append(f"the headline {record.headline!r} is not of the metric {card.headline}")
    elif record.subject == "run" and headline_beats_the_truth(record, card):
        found.append(f"{record.headline} is {record.metrics[record.headline].value:.6g}, {BEATS_THE_TRUTH}")
    return found + _source_problems(record, "task", plugin)


def _against_model(record: Record, registry: Registry) -> list[str]:
    if record.subject != "run":
        return [] if record.subject_sha256 else ["it has no digest of what was measured: evaluate it again"]
    name, _, preset = record.model.partition("+")
    plugin = registry.model(name)
    card = plugin.card
    assert isinstance(card, ModelCard)
    if record.model_version != card.version:
        return [f"made by version {record.model_version} of {card.name}, which is at version {card.version}"]
    found = []
    if record.role != card.role:
        found.append(f"the role is {record.role}, and the card of {card.name} says {card.role}")
    if preset and preset not in card.presets:
        found.append(f"{card.name} has no preset {preset!r}")
    return found + _source_problems(record, "model", plugin)


def _missing_plugin(record: Record, registry: Registry) -> str:
    model = record.model.partition("+")[0]
    for kind, name, found in (("task", record.task, registry.tasks), ("model", model, registry.models)):
        if name not in found and (kind == "task" or record.subject == "run"):
            return f"the {kind} {name} is not found: set GMBENCH_PATH to the folder that contains its plugin folder"
    return ""


def _source_problems(record: Record, kind: str, plugin: Plugin) -> list[str]:
    """Of a record by other code than the plugin's: an edited copy, or the plugin before an edit."""
    if record.source_sha256.get(kind) == source_digest(plugin):
        return []
    return [
        f"made by other code than that of the {kind} {plugin.card.name} in {plugin.folder}, "
        f"although both are version {plugin.card.version}: run it again with --force, or leave this folder out"
    ]


def _require_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} is not the file that the record describes: its SHA-256 differs")
