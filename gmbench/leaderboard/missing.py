"""Plugins that records name and discovery did not find: without them a table cannot be made as it was."""

from __future__ import annotations

from collections import Counter

from gmbench.errors import UserError
from gmbench.leaderboard.collect import Entry
from gmbench.registry import Registry

Key = tuple[str, str]


def missing_plugins(entries: list[Entry], registry: Registry) -> dict[Key, str]:
    """What is wrong in one line, by the kind and the name of each plugin that is not found."""
    counts: Counter[Key] = Counter()
    for entry in entries:
        counts["task", entry.record.task] += 1
        if entry.record.subject == "run":
            counts["model", entry.record.model.partition("+")[0]] += 1
    found = {}
    for (kind, name), num in sorted(counts.items()):
        if reason := _not_found(kind, name, num, registry):
            found[kind, name] = reason
    return found


def _not_found(kind: str, name: str, num: int, registry: Registry) -> str:
    try:
        registry.task(name) if kind == "task" else registry.model(name)
    except UserError as error:
        broken = (kind, name) in registry.clashes or any(folder.name == name for folder in registry.broken)
        if broken:
            return str(error)
        records = f"{num} record{'' if num == 1 else 's'}"
        return (
            f"the plugin {name} of {records} is not found here: set GMBENCH_PATH to the folder that contains the "
            f"{kind}'s folder"
        )
    return ""
