"""Submitting: a run folder is validated without executing anything, and only then copied."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gmbench.errors import UserError
from gmbench.record import read_points, read_record
from gmbench.registry import discover
from gmbench.submission.adding import add_runs
from gmbench.submission.validation import problems

Call = Callable[..., Any]


@pytest.fixture
def run_folder(coins: Path, tmp_path: Path) -> Path:
    from gmbench.api import run

    record = run("coin_task", "coin_model+slow", overrides={"num_steps": 5}, seed=2, out=tmp_path / "runs")
    return tmp_path / "runs" / "coin_task" / "coin_model+slow" / record.fit_id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "leaderboards"
    folder.mkdir()
    return folder


def test_record_and_points_are_copied(run_folder: Path, root: Path) -> None:
    (path,) = add_runs([run_folder], root)
    assert path == root / "records" / "coin_task" / "coin_model+slow" / f"{run_folder.name}.json"
    assert read_record(path) == read_record(run_folder / "record.json")
    assert len(read_points(path.with_suffix(".points.f32.gz"))) == 1000


def test_validating_executes_no_plugin(run_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gmbench.registry import Plugin

    def load(self: Plugin) -> None:
        raise AssertionError("a plugin was executed")

    monkeypatch.setattr(Plugin, "load", load)
    assert add_runs([run_folder], root)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("seed", 3, "fit_id is"),
        ("config", {"num_steps": 6}, "fit_id is"),
        ("row_id", "0" * 12, "row_id is"),
        ("record_id", "0" * 12, "record_id is"),
        ("model", "coin_model+fast", "no preset 'fast'"),
        ("role", "reference", "the role is reference"),
        ("headline", "nothing", "not among the metrics"),
        ("points_sha256", "0" * 64, "SHA-256 differs"),
        ("surprise", 1, "not a valid record"),
        ("metrics", {"m": {"value": "nan"}}, "not a valid record"),
        ("model", "no_such_model", "model no_such_model is not found: set GMBENCH_PATH"),
        ("task", "no_such_task", "task no_such_task is not found: set GMBENCH_PATH"),
        ("task", "../coin_task", "not a plugin name"),
        ("model", "/etc", "not a plugin name"),
    ],
)
def test_a_changed_record_is_refused(run_folder: Path, root: Path, field: str, value: Any, expected: str) -> None:
    path = run_folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=expected):
        add_runs([run_folder], root)
    assert not list(root.iterdir())


def test_changed_files_beside_it_are_refused(run_folder: Path, root: Path) -> None:
    (run_folder / "bits.png").write_bytes(b"another picture")
    with pytest.raises(UserError, match=r"bits\.png is not the file"):
        add_runs([run_folder], root)
    (run_folder / "bits.png").unlink()
    with pytest.raises(UserError, match=r"bits\.png is missing"):
        add_runs([run_folder], root)


def test_all_are_validated_before_one_is_copied(run_folder: Path, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        add_runs([run_folder, tmp_path / "nothing"], root)
    assert not list(root.iterdir())


def test_another_version_of_the_task_is_refused(run_folder: Path) -> None:
    from dataclasses import replace

    registry = discover()
    plugin = registry.tasks["coin_task"]
    registry.tasks["coin_task"] = replace(plugin, card=plugin.card.model_copy(update={"version": 2}))
    (problem, *_) = problems(read_record(run_folder / "record.json"), registry)
    assert "version 1 of coin_task, which is at version 2" in problem


def test_external_results_have_an_identity_too(coins: Path, tmp_path: Path, root: Path) -> None:
    import numpy as np

    from gmbench.evaluation import score

    np.savez(tmp_path / "s.npz", samples=np.random.default_rng(0).integers(0, 2, (2000, 4)))
    record = score(tmp_path / "s.npz", task="coin_task", out=tmp_path / "runs")
    (path,) = add_runs([tmp_path / "runs" / "coin_task" / "samples" / record.fit_id], root)
    assert read_record(path) == record


def test_submit_generates_the_tables(gmbench: Call, run_folder: Path, root: Path) -> None:
    done = gmbench("submit", run_folder, "--to", root)
    assert done.code == 0, done.err
    assert "coin_model+slow" in done.out
    nowhere = gmbench("submit", run_folder, "--to", root / "nowhere")
    assert nowhere.code == 2 and "--to" in nowhere.err
    assert gzip.decompress(next(root.rglob("*.gz")).read_bytes())


def test_a_better_number_does_not_agree_with_its_test_points(run_folder: Path, root: Path) -> None:
    path = run_folder / "record.json"
    fields = json.loads(path.read_text())
    fields["metrics"][fields["headline"]]["value"] -= 0.01
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="its values at the test points have the mean"):
        add_runs([run_folder], root)


def test_what_no_distribution_can_have_is_refused(run_folder: Path) -> None:
    record = read_record(run_folder / "record.json")
    key = record.headline
    cheat = record.metrics[key].model_copy(update={"value": -0.5, "stderr": 0.1})
    (problem,) = problems(record.model_copy(update={"metrics": record.metrics | {key: cheat}}), discover())
    assert f"{key} is -0.5, better than the truth" in problem
    noisy = cheat.model_copy(update={"stderr": 0.2})
    assert not problems(record.model_copy(update={"metrics": record.metrics | {key: noisy}}), discover())


def test_all_that_are_refused_are_named(run_folder: Path, root: Path, tmp_path: Path) -> None:
    others = [tmp_path / "one", tmp_path / "two"]
    for other in others:
        shutil.copytree(run_folder, other)
        (other / "points.f32.gz").unlink()
    with pytest.raises(UserError, match=r"one/points.f32.gz is missing .and 1 more are refused: .*two") as caught:
        add_runs([others[0], run_folder, others[1]], root)
    assert "\n" not in str(caught.value) and not list(root.iterdir())


def test_a_headline_of_another_metric_is_refused(run_folder: Path) -> None:
    record = read_record(run_folder / "record.json")
    (problem,) = problems(record.model_copy(update={"headline": "bit_error"}), discover())
    assert "not of the metric excess_nats" in problem


def test_a_run_of_other_code_is_refused(run_folder: Path) -> None:
    record = read_record(run_folder / "record.json")
    for kind in ("task", "model"):
        other = record.model_copy(update={"source_sha256": record.source_sha256 | {kind: "0" * 64}})
        (problem,) = problems(other, discover())
        assert f"other code than that of the {kind} coin_{kind}" in problem and "--force" in problem


def test_an_external_model_without_weights_can_be_submitted(coins: Path, tmp_path: Path, root: Path) -> None:
    from gmbench.evaluation import evaluate

    class Fair:
        def sample(self, num: int) -> Any:
            return torch.randint(2, (num, 4)).float()

    record = evaluate(Fair(), task="coin_task", name="fair", out=tmp_path)
    (path,) = add_runs([tmp_path / "coin_task" / "fair" / record.fit_id], root)
    assert read_record(path) == record
    (*_, problem) = problems(record.model_copy(update={"subject_sha256": ""}), discover())
    assert "no digest" in problem


def test_what_is_there_already_stays(gmbench: Call, run_folder: Path, root: Path) -> None:
    gmbench("submit", run_folder, "--to", root)
    (path,) = root.rglob("records/*/*/*.json")
    before = path.read_bytes()
    again = gmbench("submit", run_folder, "--to", root)
    assert again.code == 0 and f"already there: {path}" in again.out
    record = read_record(run_folder / "record.json")
    other = record.model_copy(update={"created": "2001-01-01T00:00:00+00:00"})
    (run_folder / "record.json").write_text(other.to_json())
    refused = gmbench("submit", run_folder, "--to", root)
    assert refused.code == 2 and "another record of that id" in refused.err and path.read_bytes() == before


def test_two_records_of_one_id_in_one_command_are_refused(run_folder: Path, root: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(run_folder, tmp_path / "twin")
    record = read_record(run_folder / "record.json")
    (twin / "record.json").write_text(record.model_copy(update={"command": "another"}).to_json())
    with pytest.raises(UserError, match="another record of that id"):
        add_runs([run_folder, twin], root)
    assert not list(root.iterdir())


def test_runs_that_have_not_ended_are_skipped(gmbench: Call, run_folder: Path, root: Path) -> None:
    begun = run_folder.with_name("begun")
    begun.mkdir()
    (begun / "lock").touch()
    done = gmbench("submit", begun, run_folder, "--to", root)
    assert done.code == 0 and f"skipped {begun}" in done.err and len(list(root.rglob("records/*/*/*.json"))) == 1
    alone = gmbench("submit", begun, "--to", root)
    assert alone.code == 2 and "has no record.json" in alone.err
