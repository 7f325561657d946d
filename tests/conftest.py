"""What tests of the harness share: the coin plugins, a place for runs, and the command line called in-process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The networks of the tests are small, and several threads on cores that others use too spin more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PLUGINS = Path(__file__).parent / "plugins"


@dataclass
class Outcome:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the coin plugins, which discovery then finds."""
    monkeypatch.setenv("GMBENCH_PATH", str(PLUGINS))
    return PLUGINS


@pytest.fixture
def gmbench(
    coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Calls the command line in an empty working folder."""
    from gmbench.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call
