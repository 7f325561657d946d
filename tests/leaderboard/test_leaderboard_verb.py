"""What `gmbench leaderboard` says when there is nothing wrong."""

from __future__ import annotations

from typing import Any

import pytest

from gmbench import standing
from gmbench.cli import main

NEAR_ONE = [1.0, 1.01, 0.99]


def test_it_says_what_is_up_to_date(boards: Any, capsys: pytest.CaptureFixture[str]) -> None:
    boards.row("alpha", NEAR_ONE)
    boards.row("beta", NEAR_ONE)
    at = ["leaderboard", "--at", str(boards.root)]
    assert main(at) == 0
    assert capsys.readouterr().out == f"{boards.root / 'toy_task.md'}\n1 table, 6 records: up to date\n"
    assert main([*at, "--check"]) == main(at) == 0
    assert capsys.readouterr().out == "1 table, 6 records: up to date\n" * 2
    boards.row("gamma", NEAR_ONE)
    assert main([*at, "--check"]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flags", [[], ["--check"]])
def test_a_checkout_without_results(
    flags: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", "--at", str(tmp_path), *flags]) == 0
    monkeypatch.setattr(standing, "leaderboards_root", lambda: None)
    assert main(["leaderboard", *flags]) == 0
    assert capsys.readouterr().out == "no records yet\n" * 2
    assert main(["leaderboard", "--at", str(tmp_path / "nowhere"), *flags]) == 2
