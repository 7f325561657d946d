"""What stands beside a new result is computed as in the leaderboards, and counts no run twice."""

from __future__ import annotations

from typing import Any

import pytest

from gmbench import standing
from gmbench.leaderboard.collect import read_entries, tables_of

VALUES = [1.0, 1.2, 1.1]


@pytest.fixture
def shipped(boards: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    boards.row("alpha", VALUES, stderr=0.3)
    boards.row("beta", [2.0])
    boards.row("beta", [0.0, 0.1], config={"rate": 0.7}, card_config=False)
    boards.row("gamma", [5.0], variant="side=right")
    boards.row("delta", [5.0], model_version=2)
    boards.add("delta", 0, None)
    boards.add("delta", 1, None, status="failed", reason="no")
    monkeypatch.setattr(standing, "leaderboards_root", lambda: boards.root)
    return boards


def test_neighbours_are_the_rows_of_the_leaderboard(shipped: Any) -> None:
    (shipped.root / "records" / "toy_task" / "alpha" / "broken.json").write_text("{")
    alpha, beta = standing.neighbours("toy_task", "side=left", "small")
    (shipped.root / "records" / "toy_task" / "alpha" / "broken.json").unlink()
    registry = shipped.registry()
    card = registry.task("toy_task").card
    rows = {row.name: row for row in tables_of(card, read_entries(shipped.root), registry)[0].rows}
    assert (alpha.model, alpha.value, alpha.half_width) == ("alpha", rows["alpha"].value, rows["alpha"].half_width)
    assert alpha.num_seeds == 3 and alpha.half_width is not None
    assert (beta.model, beta.value, beta.half_width, beta.num_seeds) == ("beta", 2.0, None, 1)
    assert standing.neighbours("unheard_of", "side=left", "small") == []


def test_the_result_itself_is_computed_in_the_same_way_and_not_counted_again(shipped: Any) -> None:
    records = [e.record for e in read_entries(shipped.root) if e.record.model == "alpha"]
    alpha, _ = standing.neighbours("toy_task", "side=left", "small")
    assert standing.summarize(records) == alpha
    [rest, _] = standing.neighbours("toy_task", "side=left", "small", apart_from=records[:1])
    assert rest.num_seeds == 2
    [beta] = standing.neighbours("toy_task", "side=left", "small", apart_from=records)
    assert beta.model == "beta"
