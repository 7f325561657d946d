"""What a failed run leaves: its cost where it made something, and nothing where it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmbench.errors import nearest
from gmbench.plan import Request, make_plan
from gmbench.runner import run


def test_the_cost_of_a_run_that_diverged(coins: Path, tmp_path: Path) -> None:
    record = run(Request("coin_task", "coin_model", overrides={"nan_at_step": 17}, out=tmp_path))
    assert record.status == "failed" and record.cost.fit_process_seconds > 0
    assert record.cost.steps == 17 and record.cost.examples == 17 * 32


def test_a_run_that_made_nothing_leaves_no_folder(
    coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gmbench import runner

    def data_for(*_: object) -> None:
        raise RuntimeError("no data today")

    request = Request("coin_task", "coin_model", out=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(runner, "data_for", data_for)
        with pytest.raises(RuntimeError, match="no data today"):
            run(request)
    assert not make_plan(request).folder.exists()
    assert run(request).status == "done" and make_plan(request).folder.exists()


def test_a_long_list_is_left_out_where_a_name_is_close() -> None:
    names = [f"name_{letter}" for letter in "abcdefghi"]
    assert nearest("name_aa", names) == "did you mean 'name_a'?"
    assert nearest("name_aa", names[:8]).endswith("known: " + ", ".join(names[:8]))
    assert nearest("xyz", names) == "known: " + ", ".join(names)
