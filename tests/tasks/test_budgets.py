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
    ("latent_language", 1): "95100d68069f",
    ("seq2seq_cipher", 1): "2e7551d08880",
    ("synthetic2d", 1): "118e7e2c7227",
    ("pcfg", 1): "94feded25054",
    ("ptb", 1): "d9c4c1534ff1",
    ("snli", 1): "1177f266de3e",
    ("wikitext2", 1): "e95813c7c16c",
    ("yahoo", 1): "1f78bdb05be2",
    ("yelp", 1): "c179ce0c74ce",
    ("text_file", 1): "dc7912f444f5",
}


@pytest.mark.parametrize("name", sorted(discover().tasks))
def test_a_measuring_budget_changes_with_the_version(name: str) -> None:
    card = discover().task(name).card
    assert isinstance(card, TaskCard)
    found = short_hash({track: budget.measure for track, budget in card.tracks.items()})
    assert BUDGETS.get((name, card.version)) == found, "raise the task's version, run its rows again, then note it here"
