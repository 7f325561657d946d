"""`gmbench leaderboard --check`: what a continuous-integration job must not let pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gmbench.errors import UserError
from gmbench.leaderboard.collect import Entry, read_entries
from gmbench.leaderboard.generate import pages
from gmbench.plugin import ModelCard, TaskCard
from gmbench.record import sha256_of
from gmbench.registry import Registry, discover
from gmbench.source import source_digest


def check(root: Path) -> list[str]:
    """Problems, one line each; an empty list when every table is what its records and the plugins' versions say."""
    registry = discover()
    try:
        entries = read_entries(root)
    except UserError as error:
        return [str(error)]
    problems = [problem for entry in entries for problem in _record_problems(entry)]
    problems += _stale_sources(entries, registry)
    for path, text in pages(root, registry).items():
        if not path.exists():
            problems.append(f"{path.name} is missing: run `gmbench leaderboard`")
        elif path.read_bytes() != text.encode():
            problems.append(f"{path.name} is stale: run `gmbench leaderboard`")
    for path in sorted(root.glob("*.md")):
        if path.name != "README.md" and path.stem not in {entry.record.task for entry in entries}:
            problems.append(f"{path.name} has no records")
    return problems


def _record_problems(entry: Entry) -> Iterator[str]:
    record, path = entry.record, entry.path
    if path.stem != record.fit_id or path.parent.name != record.model or path.parent.parent.name != record.task:
        yield f"{path}: the record inside is {record.task}/{record.model}/{record.fit_id}"
    if record.points_sha256:
        if not entry.points_path.exists():
            yield f"{entry.points_path} is missing"
        elif sha256_of(entry.points_path) != record.points_sha256:
            yield f"{entry.points_path} is damaged: its SHA-256 is not the record's"


def _stale_sources(entries: list[Entry], registry: Registry) -> Iterator[str]:
    """Plugins whose code changed although their version, and that of the task's metrics, did not."""
    digests: dict[Path, str] = {}
    told: set[str] = set()
    for entry in entries:
        record = entry.record
        try:
            task, model = registry.task(record.task), registry.model(record.model)
        except UserError:
            continue
        assert isinstance(task.card, TaskCard) and isinstance(model.card, ModelCard)
        metrics = {name: metric.version for name, metric in task.card.metrics.items()}
        for kind, plugin, same_version in (
            ("task", task, record.task_version == task.card.version and record.metric_versions == metrics),
            ("model", model, record.model_version == model.card.version),
        ):
            if kind not in record.source_sha256 or not same_version:
                continue
            digest = digests.setdefault(plugin.folder, source_digest(plugin))
            name = plugin.card.name
            if digest != record.source_sha256[kind] and name not in told:
                told.add(name)
                yield (
                    f"the {kind} {name} changed since {entry.path.name} was made, but its version is still "
                    f"{plugin.card.version}: raise it in its plugin.toml and run its rows again"
                )
