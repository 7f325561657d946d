"""What a task measures with how much is part of its version: a record of another budget must not stand beside it."""

from __future__ import annotations

import pytest

from gmbench.plugin import TaskCard
from gmbench.record import short_hash
from gmbench.registry import discover

# (task, version) -> hash of the tracks' measuring budgets. A budget changes together with the task's version.
BUDGETS = {
    ("dynamic_mnist", 1): "474fa24783ec",
    ("ising", 1): "37a85cb0ae3b",
    ("synthetic2d", 1): "118e7e2c7227",
}


@pytest.mark.parametrize("name", sorted(discover().tasks))
def test_a_measuring_budget_changes_with_the_version(name: str) -> None:
    card = discover().task(name).card
    assert isinstance(card, TaskCard)
    found = short_hash({track: budget.measure for track, budget in card.tracks.items()})
    assert BUDGETS.get((name, card.version)) == found, "raise the task's version, run its rows again, then note it here"
