"""Every plugin that discovery finds in this checkout conforms."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmbench.conformance import check
from gmbench.registry import Plugin, discover

CHECKOUT = Path(__file__).parents[2]
REGISTRY = discover()
BUNDLED = [
    plugin
    for plugin in (*REGISTRY.tasks.values(), *REGISTRY.models.values())
    if plugin.folder.resolve().is_relative_to(CHECKOUT)
]


@pytest.mark.parametrize("plugin", BUNDLED, ids=lambda plugin: f"{plugin.card.kind}-{plugin.card.name}")
def test_conforms(plugin: Plugin) -> None:
    failed = [f"{result.name}: {result.message}" for result in check(plugin) if result.status == "failed"]
    assert not failed, "\n".join(failed)


def test_no_manifest_is_broken() -> None:
    assert not REGISTRY.broken and not REGISTRY.clashes
