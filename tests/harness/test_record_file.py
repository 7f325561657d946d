"""Records: what is written is what is read, atomically; points; source digests."""

from __future__ import annotations

import array
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from gmbench.errors import UserError
from gmbench.estimate import Estimate
from gmbench.record import pack_points, read_points, read_record, write_atomically
from gmbench.registry import discover
from gmbench.source import source_digest


def test_infinite_values_survive(coins: Path, tmp_path: Path) -> None:
    from gmbench.api import run

    record = run("coin_task", "coin_model", overrides={"num_steps": 2}, out=tmp_path)
    changed = record.model_copy(update={"metrics": {"m": Estimate(value=math.inf, kind="exact")}})
    (tmp_path / "record.json").write_text(changed.to_json())
    assert read_record(tmp_path / "record.json") == changed


def test_writing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def fail(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_points_survive_and_damage_is_said(tmp_path: Path) -> None:
    values = array.array("f", [0.5, -1.25, math.inf])
    path = tmp_path / "points.f32.gz"
    path.write_bytes(pack_points(values))
    assert read_points(path) == values
    assert pack_points(values) == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError, match="damaged"):
        read_points(path)


def test_source_digest_follows_code_and_protocol_only(coins: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coin_task"
    shutil.copytree(coins / "coin_task", folder, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        return source_digest(discover().task(str(folder)))

    code, card = folder / "task.py", folder / "plugin.toml"
    own = digest()
    code.write_text(code.read_text().replace('"""The true distribution."""', '"""Another docstring."""') + "\n# why\n")
    card.write_text(card.read_text().replace("the smallest task", "the least task"))
    assert digest() == own
    card.write_text(card.read_text().replace("num_test = 1000", "num_test = 1001"))
    protocol = digest()
    assert protocol != own
    code.write_text(code.read_text().replace("1 - x", "1.0 - x"))
    assert digest() not in (own, protocol)


def test_files_that_are_too_large_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmbench.record.MAX_POINTS", 1000)
    monkeypatch.setattr("gmbench.record.MAX_RECORD_BYTES", 1000)
    path = tmp_path / "points.f32.gz"
    path.write_bytes(pack_points(array.array("f", [0.0] * 1000)))
    assert len(read_points(path)) == 1000
    path.write_bytes(pack_points(array.array("f", [0.0] * 1001)))
    with pytest.raises(UserError, match="more than 1,000 values"):
        read_points(path)
    path = tmp_path / "record.json"
    path.write_text(" " * 1001)
    with pytest.raises(UserError, match="more than 1,000 bytes"):
        read_record(path)


def test_a_kept_copy_of_the_weights_is_no_parameter(tmp_path: Path) -> None:
    """`made` keeps its best weights on validation data beside those it fits."""
    from gmbench.plan import Request, make_plan
    from gmbench.runner import load_fitted, run

    request = Request("synthetic2d", "made", "density=moons,bits=16", "smoke", overrides={"num_steps": 1}, out=tmp_path)
    record, model = run(request), load_fitted(make_plan(request))
    assert record.cost.parameters == sum(p.numel() for p in model.get_submodule("network").parameters())
    assert record.cost.parameters < sum(p.numel() for p in model.parameters())
