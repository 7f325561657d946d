"""`gmbench run` on the coin plugins, in-process."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmbench.leaderboard.markdown import number

RUN = ("run", "--task", "coin_task", "--model", "coin_model")
Call = Callable[..., Any]


def test_run_prints_the_result_and_leaves_the_record(gmbench: Call, tmp_path: Path) -> None:
    done = gmbench(*RUN)
    assert done.code == 0
    (record,) = tmp_path.glob("runs/coin_task/coin_model/*/record.json")
    assert str(record.relative_to(tmp_path)) in done.out
    assert "* excess_nats.exact" in done.out and "± one standard error" in done.out and "unbiased" in done.out
    assert "not measured: coupling_norm: needs couplings" in done.out
    assert (record.parent / "bits.png").is_file() and "bits.png" in done.out
    assert not list(record.parent.glob("checkpoint*"))


def test_json_goes_alone_to_standard_output(gmbench: Call) -> None:
    one = gmbench(*RUN, "--json")
    assert one.json["status"] == "done" and one.json["headline"] == "excess_nats.exact"
    assert "excess_nats" in one.err
    several = gmbench(*RUN, "--json", "--seed", "0..1")
    assert [record["seed"] for record in several.json] == [0, 1]
    assert several.json[0] == one.json


def test_the_same_command_finds_the_finished_run(gmbench: Call) -> None:
    first, second = gmbench(*RUN, "--json"), gmbench(*RUN, "--json")
    assert first.json == second.json
    assert "already done" in second.err


def test_force_and_remeasure_repeat_the_numbers(gmbench: Call) -> None:
    first = gmbench(*RUN, "--json").json
    measured, forced = gmbench(*RUN, "--json", "--remeasure").json, gmbench(*RUN, "--json", "--force").json
    assert first["metrics"] == measured["metrics"] == forced["metrics"]
    assert measured["cost"]["fit_wall_seconds"] == first["cost"]["fit_wall_seconds"]
    assert forced["cost"]["fit_wall_seconds"] != first["cost"]["fit_wall_seconds"]


def test_all_variants_and_seeds(gmbench: Call) -> None:
    done = gmbench(*RUN, "--variant", "all", "--track", "smoke", "--seed", "0,2", "--json")
    assert [(record["variant"], record["seed"]) for record in done.json] == [
        ("bias=mild", 0), ("bias=mild", 2), ("bias=strong", 0), ("bias=strong", 2),
    ]  # fmt: skip
    small = gmbench(*RUN, "--variant", "all", "--track", "small", "--json")
    assert small.json["variant"] == "bias=mild"


def test_set_changes_the_config_and_the_identity(gmbench: Call) -> None:
    own = gmbench(*RUN, "--json").json
    changed = gmbench(*RUN, "--json", "--set", "num_steps=7", "--set", "momentum=0.5").json
    assert own["card_config"] and not changed["card_config"]
    assert changed["config"]["num_steps"] == 7 and changed["fit_id"] != own["fit_id"]
    again = gmbench(*changed["command"].split()[1:], "--json").json
    assert again["fit_id"] == changed["fit_id"]


def test_preset_has_its_own_name(gmbench: Call) -> None:
    record = gmbench("run", "--task", "coin_task", "--model", "coin_model+slow", "--json").json
    assert record["model"] == "coin_model+slow" and record["config"]["learning_rate"] == 0.005
    assert record["card_config"]


def test_dry_run_fits_nothing(gmbench: Call, tmp_path: Path) -> None:
    done = gmbench(*RUN, "--dry-run", "--json")
    assert done.json["state"] == "not started" and done.json["config"]["momentum"] == 0.8
    assert not (tmp_path / "runs").exists()
    run = gmbench(*RUN, "--json").json
    assert done.json["fit_id"] == run["fit_id"] and done.json["record_id"] == run["record_id"]
    assert "done" in gmbench(*RUN, "--dry-run").out


def test_out_and_path_of_a_plugin_folder(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    paths = ("--task", coins / "coin_task", "--model", coins / "coin_model")
    done = gmbench("run", *paths, "--out", "elsewhere", "--json")
    assert (tmp_path / "elsewhere" / "coin_task" / "coin_model" / done.json["fit_id"] / "record.json").is_file()


def test_a_failing_run_does_not_stop_the_others(gmbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from gmbench import runner

    real = runner.execute

    def execute(plan: Any, options: Any) -> Any:
        if plan.request.seed == 0:
            raise RuntimeError("the dog ate it")
        return real(plan, options)

    monkeypatch.setattr(runner, "execute", execute)
    done = gmbench(*RUN, "--seed", "0..1", "--json")
    assert done.code == 1
    assert [record["seed"] for record in done.json] == [1]
    assert "seed 0: RuntimeError: the dog ate it" in done.err


def test_neighbours_stand_beside_the_result(gmbench: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gmbench.standing as standing

    root = tmp_path / "leaderboards"
    for seed in (0, 1):
        record = gmbench(*RUN, "--seed", str(seed), "--json").json
        record |= {"model": "rival", "metrics": {"excess_nats.exact": {"value": 0.5 + seed, "stderr": 0.1, "n": 9}}}
        path = root / "records" / "coin_task" / "rival" / f"{record['fit_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    (path.parent / "broken.json").write_text("{")
    monkeypatch.setattr(standing, "leaderboards_root", lambda: root)
    (rival,) = standing.neighbours("coin_task", "bias=mild", "smoke")
    assert rival.model == "rival (plugin not found here)"
    assert rival.value == pytest.approx(1.0) and rival.num_seeds == 2
    # t of one degree of freedom for two seeds, of eight for nine test points
    assert rival.half_width == pytest.approx((12.7062**2 * 0.5 / 2 + 2.30600**2 * 0.1**2) ** 0.5, rel=1e-4)
    assert standing.neighbours("coin_task", "bias=strong", "smoke") == []
    # What another version of the headline metric measured is not compared.
    aside = path.with_name("aside.json")
    aside.write_text(json.dumps(record | {"metric_versions": {"excess_nats": 7}}))
    assert standing.neighbours("coin_task", "bias=mild", "smoke") == [rival]
    lines = gmbench(*RUN).out.splitlines()
    own, other = (next(i for i, line in enumerate(lines) if name in line) for name in ("(this run)", "rival"))
    assert own < other  # lower is better


def test_the_run_is_named_at_once(gmbench: Call) -> None:
    done = gmbench(*RUN, "--set", "num_step=3")  # a mistake that is found after torch is imported
    first, error = done.err.splitlines()
    assert first == "coin_task bias=mild · smoke · coin_model · seed 0" and error.startswith("error: ")
    assert gmbench("run", "--task", "coin_task", "--model", "coin_model+slow").err.startswith(
        "coin_task bias=mild · smoke · coin_model+slow · seed 0\n"
    )


def test_several_seeds_get_a_line_each_and_one_table(gmbench: Call) -> None:
    records = gmbench(*RUN, "--seed", "0..2", "--json").json
    done = gmbench(*RUN, "--seed", "0..2")
    lines = [line for line in done.out.splitlines() if "record.json" in line]
    assert [line.partition(":")[0] for line in lines] == [f"bias=mild · seed {seed}" for seed in (0, 1, 2)]
    assert all("excess_nats.exact" in line and "CPU-s" in line for line in lines)
    values = [record["metrics"]["excess_nats.exact"]["value"] for record in records]
    expected = number(statistics.mean(values), statistics.stdev(values) / 3**0.5)
    (row,) = [line for line in done.out.splitlines() if line.startswith("* excess_nats.exact")]
    assert expected in row and row.endswith(" 3")
    assert "mean over 3 seeds" in done.out and "± one standard error of the mean over seeds" in done.out
    assert done.out.count("metric ") == 1  # one table, not one a run


def test_each_variant_has_its_own_averages(gmbench: Call) -> None:
    done = gmbench(*RUN, "--variant", "all", "--track", "smoke")
    assert "bias=mild · smoke · coin_model · 1 seed" in done.out and "bias=strong · smoke" in done.out
    assert done.out.count("* excess_nats.exact") == 2


def test_an_empty_output_folder_is_refused(gmbench: Call, tmp_path: Path) -> None:
    for verb in (RUN, ("score", "--task", "coin_task", "--samples", "s.npz"), ("new", "model", "mine")):
        done = gmbench(*verb, "--out", "")
        assert done.code == 2 and "--out is empty" in done.err
    assert not list(tmp_path.iterdir())
