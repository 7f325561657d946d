"""What changes the identity of a run and what does not; how configs are layered."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gmbench.errors import UserError
from gmbench.plan import Request, make_plan, parse_overrides
from gmbench.plugin import ModelCard, parse_factors
from gmbench.registry import discover
from gmbench.runner import run

BASE = Request("coin_task", "coin_model")


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"variant": "bias=strong"},
        {"track": "small"},
        {"precision": "bf16-mixed"},
        {"threads": 2},
        {"overrides": {"noise": 0.5}},
        {"model": "coin_model+slow"},
    ],
    ids=str,
)
def test_what_changes_the_fit(coins: Path, changed: dict[str, object]) -> None:
    own, other = make_plan(BASE), make_plan(replace(BASE, **changed))  # type: ignore[arg-type]
    assert own.fit_id != other.fit_id and own.record_id != other.record_id
    assert (own.row_id == other.row_id) == (changed == {"seed": 1})


def test_what_does_not(coins: Path) -> None:
    own = make_plan(BASE)
    same = [
        replace(BASE, variant="bias=mild", track="smoke"),
        replace(BASE, out=Path("elsewhere")),
        replace(BASE, task=str(coins / "coin_task"), model=str(coins / "coin_model")),
        replace(BASE, overrides={"noise": 0.01}),
    ]
    assert {make_plan(one).fit_id for one in same} == {own.fit_id}


def test_metric_version_changes_the_record_and_not_the_fit(coins: Path) -> None:
    own = make_plan(BASE)
    metrics = {**own.task_card.metrics}
    metrics["bit_error"] = metrics["bit_error"].model_copy(update={"version": 2})
    card = own.task_card.model_copy(update={"metrics": metrics})
    other = replace(own, task=replace(own.task, card=card))
    assert own.fit_id == other.fit_id and own.record_id != other.record_id


def test_later_layers_win() -> None:
    card = ModelCard.model_validate(
        {
            "kind": "model", "name": "m", "version": 1, "summary": "", "entry": "a:B", "licence": "", "family": "f",
            "accepts": ["binary"], "capabilities": [],
            "config": {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0},
            "tasks": {"t": {"config": {"b": 1, "c": 1, "d": 1, "e": 1}, "tracks": {"small": {"e": 4}}}},
            "presets": {"p": {"summary": "", "config": {"c": 2, "d": 2, "e": 2}}},
            "tracks": {"small": {"d": 3, "e": 3}},
        }
    )  # fmt: skip
    assert card.resolve("t", "small", "p") == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert card.resolve("t", "smoke") == {"a": 0, "b": 1, "c": 1, "d": 1, "e": 1}
    assert card.resolve("other", "small") == {"a": 0, "b": 0, "c": 0, "d": 3, "e": 3}


def test_overrides_and_factors() -> None:
    assert parse_overrides(["a=1", "b=0.5", "c=true", "d=mlp", "e=[1, 2]", "f=x=y"]) == {
        "a": 1, "b": 0.5, "c": True, "d": "mlp", "e": [1, 2], "f": "x=y",
    }  # fmt: skip
    assert parse_factors("lattice=10x10, sigma=0.1") == {"lattice": "10x10", "sigma": "0.1"}
    with pytest.raises(UserError):
        parse_factors("sigma=")


def test_command_makes_the_same_plan(coins: Path) -> None:
    request = replace(BASE, overrides={"noise": 0.5}, seed=3, threads=2)
    command = make_plan(request).command
    assert command.startswith("gmbench run")
    for part in ("--seed 3", "--set noise=0.5", "--threads 2"):
        assert part in command


def test_factors_that_are_left_out_are_filled_in() -> None:
    ising, plane = discover().task("ising").card, discover().task("synthetic2d").card
    assert ising.variant("sigma=0.3").name == "lattice=10x10,sigma=0.3"  # from the default variant
    assert ising.variant("lattice=4x4").name == "lattice=4x4,sigma=0.2"  # the only one of that lattice
    assert plane.variant("bits=16,density=moons").name == "density=moons,n=10k,bits=16"  # in any order
    with pytest.raises(UserError, match=r"names 2 variants: lattice=9x9,sigma=-0\.1; lattice=9x9,sigma=-0\.2"):
        ising.variant("lattice=9x9")


def test_a_copy_does_not_pass_for_the_plugin_of_its_name(coins: Path, tmp_path: Path) -> None:
    for kind in ("task", "model"):
        copy = shutil.copytree(coins / f"coin_{kind}", tmp_path / kind)
        with pytest.raises(UserError, match=f"two {kind} plugins are named 'coin_{kind}'"):
            run(replace(BASE, out=tmp_path / "runs", **{kind: str(copy)}))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("changed", [{"device": "cpu:1"}, {"device": "cuda:x"}, {"precision": "16-mixed"}], ids=str)
def test_what_no_run_can_have(coins: Path, changed: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"no (device|precision) is named"):
        make_plan(replace(BASE, **changed))  # type: ignore[arg-type]
