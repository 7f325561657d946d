"""Checkpoints: two generations, of which a damaged one loses at most one interval."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from gmbench.checkpoint import Checkpoints
from gmbench.errors import RunFailed

CPU = torch.device("cpu")


def test_newest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load(CPU) is None
    for step in range(3):
        checkpoints.save({"step": step, "model": {"w": torch.full((2,), float(step))}})
    state = checkpoints.load(CPU)
    assert state is not None and state["step"] == 2 and torch.equal(state["model"]["w"], torch.full((2,), 2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "foreign", "half"])
def test_damaged_newest_falls_back(tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(2):
        checkpoints.save({"step": step})
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2] if content is None else content)
    with caplog.at_level(logging.WARNING, "gmbench"):
        state = checkpoints.load(CPU)
    assert state == {"step": 0}
    assert "checkpoint.pt is damaged" in caplog.text
    newest.unlink()
    assert checkpoints.load(CPU) == {"step": 0}  # killed between the two renames


def test_both_damaged_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"rubble")
    with pytest.raises(RunFailed, match=r"every checkpoint .* is damaged; --force"):
        Checkpoints(tmp_path).load(CPU)


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Path}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunFailed):
        Checkpoints(tmp_path).load(CPU)
