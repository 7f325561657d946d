"""Warm starts: which runs a card's inputs are, what they change in the child's identity, and how they are made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gmbench.conformance import check
from gmbench.consistency import contradictions
from gmbench.errors import RunFailed, UserError
from gmbench.plan import Request, describe_plan, make_plan
from gmbench.plugin import ModelCard, read_manifest
from gmbench.record import read_record
from gmbench.registry import Plugin
from gmbench.runner import Options, load_fitted, run
from gmbench.source import source_digest

WARM_START = '''
    def warm_start(self, name: str, parent: Model) -> None:
        with torch.no_grad():
            self.logits.copy_(parent.logits)
        self.running_mean.fill_(0.25)

    def stages('''
INPUTS = """
[inputs.start]
model = "coin_model+slow"
config = { noise = 0.5 }
tracks.small = { num_steps = 7 }

[presets.cold]
summary = "from nothing"
config = {}
inputs = {}

[presets.shared]
summary = "from one run for all seeds, on the other variant"
config = {}
inputs.start = { model = "coin_model", seed = 1000, variant = "bias=strong", track = "smoke" }
"""
BASE = Request("coin_task", "warm_coin")
Make = Callable[..., Path]


@pytest.fixture
def warm(coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a copy of the coin model that starts from the logits of a fitted one, with these inputs in its card."""
    house = tmp_path / "house"
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{house}")
    monkeypatch.chdir(tmp_path)

    def make(inputs: str = INPUTS, name: str = "warm_coin", extra: str = "") -> Path:
        folder = house / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(coins / "coin_model", folder, ignore=shutil.ignore_patterns("__pycache__"))
        code, card = folder / "model.py", folder / "plugin.toml"
        code.write_text(code.read_text().replace("\n    def stages(", WARM_START, 1))
        text = card.read_text().replace('"coin_model"', f'"{name}"')
        card.write_text(text.replace("[tasks.coin_task]\n", f"[tasks.coin_task]\n{extra}\n") + inputs)
        return folder

    return make


def card(folder: Path) -> ModelCard:
    found = read_manifest(folder)
    assert isinstance(found, ModelCard)
    return found


def test_an_input_is_on_what_the_child_is_on_unless_it_says_else(warm: Make) -> None:
    warm()
    parent = make_plan(replace(BASE, seed=3, threads=2, variant="bias=strong")).inputs["start"]
    expected = Request(
        "coin_task", "coin_model+slow", "bias=strong", "smoke", 3, threads=2, overrides={"noise": 0.5}
    )  # fmt: skip
    assert parent.request == expected and parent.fit_id == make_plan(expected).fit_id
    assert (parent.config.noise, parent.config.num_steps) == (0.5, 60)  # type: ignore[attr-defined]
    on_small = make_plan(replace(BASE, track="small")).inputs["start"]
    assert on_small.track == "small" and on_small.config.num_steps == 7  # type: ignore[attr-defined]
    shared = make_plan(replace(BASE, model="warm_coin+shared", seed=3, track="small")).inputs["start"]
    assert shared.request == Request("coin_task", "coin_model", "bias=strong", "smoke", 1000)
    assert make_plan(replace(BASE, model="warm_coin+cold")).inputs == {}


def test_an_input_on_another_task_has_its_default_variant(warm: Make) -> None:
    warm('[inputs.start]\nmodel = "independent_bits"\ntask = "ising"\n')
    plan = make_plan(replace(BASE, variant="bias=strong")).inputs["start"]
    assert plan.task_card.name == "ising" and plan.variant.name == plan.task_card.default_variant
    assert plan.track == "smoke"


def test_the_preset_s_inputs_go_before_the_task_s_and_those_before_the_card_s(warm: Make) -> None:
    found = card(warm(extra='inputs.other = { model = "coin_model" }'))
    assert list(found.inputs_for("coin_task")) == ["other"]
    assert list(found.inputs_for("ising")) == ["start"]
    assert found.inputs_for("coin_task", "cold") == found.inputs_for("ising", "cold") == {}
    assert found.inputs_for("coin_task", "shared")["start"].seed == 1000
    assert card(warm(extra="inputs = {}")).inputs_for("coin_task") == {}


def test_inputs_enter_the_identity_and_seeds_stay_one_row(warm: Make) -> None:
    warm()
    plans = {
        (preset, seed): make_plan(replace(BASE, model=f"warm_coin{preset}", seed=seed))
        for preset in ("", "+cold", "+shared")
        for seed in (0, 1)
    }
    assert len({plan.fit_id for plan in plans.values()}) == 6
    rows = {preset: {plans[preset, seed].row_id for seed in (0, 1)} for preset in ("", "+cold", "+shared")}
    assert all(len(row) == 1 for row in rows.values()) and len(set.union(*rows.values())) == 3
    assert plans["", 0].parents != plans["", 1].parents and plans["+shared", 0].parents == plans["+shared", 1].parents
    warm(INPUTS.replace("seed = 1000", "seed = 1001"))
    other = make_plan(replace(BASE, model="warm_coin+shared"))
    assert other.row_id != plans["+shared", 0].row_id and other.fit_id != plans["+shared", 0].fit_id


def test_the_digest_is_of_code_and_not_of_inputs(warm: Make) -> None:
    folder = warm()
    before = source_digest(Plugin(card(folder), folder))
    warm(INPUTS.replace("0.5", "0.25").replace("1000", "7"))
    assert source_digest(Plugin(card(folder), folder)) == before


def test_a_missing_input_is_named_with_the_command_that_makes_it(warm: Make, gmbench: Callable[..., Any]) -> None:
    warm()
    words = ("run", "--task", "coin_task", "--model", "warm_coin", "--out", "here")
    done = gmbench(*words)
    (line,) = done.err.splitlines()[-1:]
    command = (
        "gmbench run --task coin_task --variant bias=mild --track smoke --model coin_model+slow --seed 0 "
        "--set noise=0.5 --out here"
    )
    assert done.code == 2 and line == f"error: input 'start' has not been run; --with-inputs runs it, or: {command}"
    assert not list(Path("here").rglob("begun.json"))
    (dry,) = [row for row in gmbench(*words, "--dry-run").out.splitlines() if row.startswith("inputs:")]
    assert f"not started: {command.removesuffix(' --out here')}" in dry
    assert gmbench(*command.split()[1:]).code == 0
    assert gmbench(*words, "--json").json["status"] == "done"


def test_a_run_makes_what_is_missing_and_starts_there(warm: Make, gmbench: Callable[..., Any]) -> None:
    warm()
    words = ("run", "--task", "coin_task", "--model", "warm_coin+shared", "--set", "learning_rate=1e-12")
    done = gmbench(*words, "--seed", "0,1", "--with-inputs", "--json")
    assert done.code == 0
    assert done.err.count("input start: gmbench run") == 1  # one run serves both seeds
    plan = make_plan(replace(BASE, model="warm_coin+shared", overrides={"learning_rate": 1e-12}))
    child, parent = load_fitted(plan), load_fitted(plan.inputs["start"])
    assert float((child.logits - parent.logits).detach().abs().max()) < 0.06  # but for the jitter of .01
    assert float(parent.logits.detach().abs().max()) > 0.5  # where nobody else begins
    records = [read_record(path) for path in Path("runs/coin_task/warm_coin+shared").rglob("record.json")]
    assert len(records) == 2 and len({one.row_id for one in records}) == 1
    spent = read_record(plan.inputs["start"].folder / "record.json").cost.fit_process_seconds
    for record in records:
        assert record.parents == {"start": plan.inputs["start"].fit_id} and contradictions(record) == []
        assert record.cost.parents_process_seconds == spent > 0
        assert record.command.endswith("--with-inputs")
    shutil.rmtree(plan.inputs["start"].folder)  # what is fitted needs its inputs no more
    assert gmbench(*words, "--remeasure").code == 0


def test_inputs_of_inputs_are_made_too(warm: Make) -> None:
    warm("[inputs.start]\nmodel = 'coin_model'\n", name="middle_coin")
    warm("[inputs.start]\nmodel = 'middle_coin'\n")
    record = run(BASE, Options(with_inputs=True))
    middle = read_record(make_plan(BASE).inputs["start"].folder / "record.json")
    assert record.cost.parents_process_seconds == pytest.approx(
        middle.cost.fit_process_seconds + middle.cost.parents_process_seconds
    )
    assert middle.cost.parents_process_seconds > 0


def test_an_input_that_failed_is_said_to_have_failed(warm: Make) -> None:
    warm("[inputs.start]\nmodel = 'coin_model'\nconfig = { nan_at_step = 3 }\n")
    with pytest.raises(RunFailed, match="the input start, coin_model, failed"):
        run(BASE, Options(with_inputs=True))
    with pytest.raises(UserError, match=r"input 'start' has failed; .*nan_at_step=3 --force"):
        run(BASE)


def test_inputs_that_lead_back_are_refused(warm: Make) -> None:
    warm("[inputs.start]\nmodel = 'warm_coin'\n", name="middle_coin")
    warm("[inputs.start]\nmodel = 'middle_coin'\n")
    with pytest.raises(UserError, match=r"inputs of model warm_coin on coin_task lead back"):
        make_plan(BASE)
    warm("[inputs.start]\nmodel = 'warm_coin'\ntrack = 'small'\n\n[presets.cold]\nsummary = ''\nconfig = {}\n")
    with pytest.raises(UserError, match="lead back"):
        make_plan(BASE)
    warm("[inputs.start]\nmodel = 'warm_coin+cold'\n\n[presets.cold]\nsummary = ''\nconfig = {}\ninputs = {}\n")
    assert make_plan(BASE).inputs["start"].inputs == {}  # from itself, which starts from nothing


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("model = 'coin_modl'", "did you mean 'coin_model'"),
        ("model = 'coin_model+fast'", "no preset 'fast'"),
        ("model = 'coin_model'\ntask = 'coin_tsk'", "did you mean 'coin_task'"),
        ("model = 'coin_model'\nvariant = 'bias=mid'", "did you mean 'bias=mild'"),
        ("model = 'coin_model'\nconfig = { nois = 1 }", "did you mean 'noise'"),
    ],
)
def test_inputs_that_cannot_be(warm: Make, inputs: str, expected: str) -> None:
    warm(f"[inputs.start]\n{inputs}\n")
    with pytest.raises(UserError, match=expected):
        make_plan(BASE)


@pytest.mark.parametrize("inputs", ["seed = -1", "track = 'smal'", "presets = 'a'"])
def test_a_card_s_mistakes_are_found_as_it_is_read(warm: Make, inputs: str) -> None:
    folder = warm(f"[inputs.start]\nmodel = 'coin_model'\n{inputs}\n")
    with pytest.raises(UserError, match=r"plugin\.toml: inputs\.start"):
        read_manifest(folder)


def test_conformance_goes_through_the_preset_without_inputs(warm: Make) -> None:
    folder = warm()
    results = {one.name: one for one in check(str(folder))}
    assert all(one.status != "failed" for one in results.values())
    assert results["resumes_exactly"].status == results["fits"].status == "passed"
    code = folder / "model.py"
    code.write_text(code.read_text().replace("return -(x @ self.logits)", "return (x @ self.logits)[:, None]"))
    folder = Path(shutil.copytree(folder, folder.parent / "again"))
    assert [one.name for one in check(str(folder)) if one.status == "failed"] == ["energy_has_its_shape"]
    without = INPUTS.replace("inputs = {}\n", "")
    assert {one.name: one.status for one in check(str(warm(without, name="other_coin")))}["fits"] == "skipped"


def test_show_names_the_inputs(warm: Make, gmbench: Callable[..., Any]) -> None:
    warm(extra='inputs.other = { model = "coin_model", task = "ising", seed = 0 }')
    shown = gmbench("show", "warm_coin").out
    for expected in (
        "input start: coin_model+slow, the same task, the same seed\n  noise = 0.5\n  on track small: num_steps = 7\n",
        "input other on coin_task: coin_model, task ising, seed 0 for every seed\n",
        "preset warm_coin+cold: from nothing\ninputs of warm_coin+cold: none\n",
        "input start of warm_coin+shared: coin_model, the same task, variant bias=strong, track smoke, seed 1000",
    ):
        assert expected in shown, expected
    as_json = gmbench("show", "warm_coin", "--json").json
    assert as_json["inputs"]["start"]["config"] == {"noise": 0.5} and as_json["presets"]["cold"]["inputs"] == {}


def test_a_plan_says_what_its_inputs_are(warm: Make) -> None:
    warm()
    described = describe_plan(make_plan(BASE))
    assert described["parents"] == {"start": make_plan(BASE).inputs["start"].fit_id}
    assert described["inputs"]["start"].startswith("not started: gmbench run --task coin_task")
    assert described["command"].endswith("--with-inputs") and json.dumps(described)
