"""A record names the code that made its numbers, also where the code changed while the run went on or lay still."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmbench.errors import UserError
from gmbench.plan import Request
from gmbench.record import read_record
from gmbench.registry import discover
from gmbench.runner import Options, run
from gmbench.source import source_digest
from gmbench.training import Interrupted

Call = Callable[..., Any]


@pytest.fixture
def model(coins: Path, tmp_path: Path) -> Path:
    """A model of this test's own, whose code may change."""
    folder = shutil.copytree(coins / "coin_model", tmp_path / "own_coin")
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('"coin_model"', '"own_coin"'))
    return folder


@pytest.fixture
def request_of(model: Path, tmp_path: Path) -> Request:
    return Request("coin_task", str(model), overrides={"num_steps": 5}, out=tmp_path / "runs")


def edit(model: Path) -> None:
    code = model / "model.py"
    code.write_text(code.read_text().replace("0.01 * torch.randn", "0.02 * torch.randn"))


def test_code_that_changes_during_a_run_is_not_what_made_it(model: Path, request_of: Request) -> None:
    begun = source_digest(discover().model(str(model)))
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            edit(model)
        return False

    record = run(request_of, Options(should_stop=should_stop))
    assert record.source_sha256["model"] == begun != source_digest(discover().model(str(model)))


def test_other_code_neither_resumes_nor_measures_a_fit_again(model: Path, request_of: Request) -> None:
    with pytest.raises(Interrupted):
        run(request_of, Options(should_stop=lambda: True))
    original = (model / "model.py").read_text()
    edit(model)
    with pytest.raises(UserError, match="the code of own_coin has changed since"):
        run(request_of)
    (model / "model.py").write_text(original + "# a comment changes nothing\n")
    record = run(request_of)
    assert record.cost.resumes == 1
    edit(model)
    with pytest.raises(UserError, match="--force begins it again"):
        run(request_of, Options(remeasure=True))
    [path] = request_of.out.rglob("record.json")
    assert read_record(path) == record
    assert run(request_of, Options(force=True)).source_sha256 != record.source_sha256


def test_a_finished_run_of_older_code_says_so(gmbench: Call, model: Path) -> None:
    command = ("run", "--task", "coin_task", "--model", model, "--set", "num_steps=5")
    assert gmbench(*command).code == 0
    assert "changed since" not in gmbench(*command).err
    edit(model)
    assert "already done, by code that has changed since" in gmbench(*command).err
