"""`gmbench leaderboard --check`: what a continuous-integration job must not let pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gmbench.consistency import (
    BEATS_THE_TRUTH,
    bad_name,
    contradictions,
    headline_beats_the_truth,
    points_contradiction,
)
from gmbench.errors import UserError
from gmbench.leaderboard.collect import POINTS_SUFFIX, Entry, read_entry, record_paths
from gmbench.leaderboard.generate import pages
from gmbench.leaderboard.missing import missing_plugins
from gmbench.plugin import ModelCard, TaskCard
from gmbench.record import read_points, sha256_of
from gmbench.registry import Plugin, Registry, discover
from gmbench.source import source_digest


def check(root: Path) -> list[str]:
    """Problems, one line each; an empty list when every table is what its records and the plugins' versions say."""
    registry = discover()
    entries, problems = [], []
    for path in record_paths(root):
        try:
            entries.append(read_entry(path))
        except UserError as error:
            problems.append(str(error))
    for entry in entries:
        problems += _record_problems(entry)
    problems += _better_than_the_truth(entries, registry)
    problems += _stray_points(root)
    problems += _stale_sources(entries, registry)
    problems += missing_plugins(entries, registry).values()
    if not problems:  # a table can only be judged by records that are in order, and with the cards of their plugins
        problems += _stale_pages(root, entries, registry)
    return problems


def _record_problems(entry: Entry) -> Iterator[str]:
    record, path = entry.record, entry.path
    if path.stem != record.fit_id or path.parent.name != record.model or path.parent.parent.name != record.task:
        yield f"{path}: the record inside is {record.task}/{record.model}/{record.fit_id}"
    for problem in filter(None, (bad_name(record), *contradictions(record))):
        yield f"{path}: {problem}"
    if record.points_sha256:
        if not entry.points_path.exists():
            yield f"{entry.points_path} is missing"
        elif sha256_of(entry.points_path) != record.points_sha256:
            yield f"{entry.points_path} is damaged: its SHA-256 is not the record's"
        else:
            try:
                problem = points_contradiction(record, read_points(entry.points_path))
            except UserError as error:
                problem = str(error)
            if problem:
                yield f"{path}: {problem}"


def _better_than_the_truth(entries: list[Entry], registry: Registry) -> Iterator[str]:
    for entry in entries:
        record, task = entry.record, registry.tasks.get(entry.record.task)
        if record.subject == "run" and task is not None:
            assert isinstance(task.card, TaskCard)
            if headline_beats_the_truth(record, task.card):
                value = record.metrics[record.headline].value
                yield f"{entry.path}: {record.headline} is {value:.6g}, {BEATS_THE_TRUTH}"


def _stray_points(root: Path) -> Iterator[str]:
    for path in sorted((root / "records").glob(f"*/*/*{POINTS_SUFFIX}")):
        if not path.with_name(path.name.removesuffix(POINTS_SUFFIX) + ".json").exists():
            yield f"{path} has no record"


def _stale_pages(root: Path, entries: list[Entry], registry: Registry) -> Iterator[str]:
    try:
        wanted = pages(root, entries, registry)
    except UserError as error:
        yield str(error)
        return
    for path, text in wanted.items():
        if not path.exists():
            yield f"{path.name} is missing: run `gmbench leaderboard`"
        elif path.read_bytes() != text.encode():
            yield f"{path.name} is stale: run `gmbench leaderboard`"
    for path in sorted(root.glob("*.md")):
        if path.name != "README.md" and path not in wanted:
            yield f"{path.name} has no records"


def _stale_sources(entries: list[Entry], registry: Registry) -> Iterator[str]:
    """Plugins whose code changed although their version, and that of the task's metrics, did not."""
    digests: dict[tuple[str, str], str] = {}
    told: set[tuple[str, str]] = set()
    for entry in entries:
        record = entry.record
        for kind, plugin in _plugins_of_same_version(entry, registry):
            name = plugin.card.name
            key = (kind, name)
            if kind not in record.source_sha256 or key in told:
                continue
            if key not in digests:
                digests[key] = source_digest(plugin)
            if digests[key] != record.source_sha256[kind]:
                told.add(key)
                yield (
                    f"the {kind} {name} changed since {entry.path.name} was made, but its version is still "
                    f"{plugin.card.version}: raise it in its plugin.toml and run its rows again"
                )


def _plugins_of_same_version(entry: Entry, registry: Registry) -> Iterator[tuple[str, Plugin]]:
    record = entry.record
    try:
        task = registry.task(record.task)
    except UserError:
        return
    assert isinstance(task.card, TaskCard)
    metrics = {name: metric.version for name, metric in task.card.metrics.items()}
    if record.task_version == task.card.version and record.metric_versions == metrics:
        yield "task", task
    try:
        model = registry.model(record.model)
    except UserError:
        return
    assert isinstance(model.card, ModelCard)
    if record.subject == "run" and record.model_version == model.card.version:
        yield "model", model
