"""The training loop: resuming at any step, schedules, divergence, streams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gmbench.plan import Plan, Request, make_plan
from gmbench.runner import data_for, make_task, new_model
from gmbench.training import Diverged, Gradient, Interrupted, Trainer, cosine, linear_decay


@pytest.fixture
def plan(coins: Path) -> Plan:
    return make_plan(Request("coin_task", "coin_model", overrides={"num_steps": 12}))


def fit(plan: Plan, **settings: Any) -> Any:
    model = new_model(plan)
    model.cost = Trainer(seed=plan.request.seed, **settings).fit(model, data_for(plan, make_task(plan)))
    return model


class StopAfter:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_interrupted_at_every_step_it_ends_the_same(plan: Plan, tmp_path: Path) -> None:
    undisturbed = fit(plan).state_dict()
    for stop in range(1, 25):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(Interrupted):
            fit(plan, folder=folder, should_stop=StopAfter(stop))
        resumed = fit(plan, folder=folder)
        assert resumed.cost.resumes == 1 and resumed.cost.steps == 24
        for name, tensor in resumed.state_dict().items():
            assert torch.equal(tensor, undisturbed[name]), f"{name} after a stop at step {stop}"


def test_a_damaged_newest_checkpoint_changes_no_number(plan: Plan, tmp_path: Path) -> None:
    undisturbed = fit(plan).state_dict()
    with pytest.raises(Interrupted):
        fit(plan, folder=tmp_path, should_stop=StopAfter(7), checkpoint_seconds=0.0)
    (tmp_path / "checkpoint.pt").write_bytes(b"rubble")
    resumed = fit(plan, folder=tmp_path).state_dict()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


def test_global_generator_is_left_alone(plan: Plan) -> None:
    before = torch.get_rng_state()
    fit(plan)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_give_different_fits(plan: Plan, coins: Path) -> None:
    other = make_plan(Request("coin_task", "coin_model", seed=1, overrides={"num_steps": 12}))
    assert not torch.equal(fit(plan).logits, fit(other).logits)


def test_divergence_names_the_step(coins: Path) -> None:
    plan = make_plan(Request("coin_task", "coin_model", overrides={"nan_at_step": 5}))
    with pytest.raises(Diverged, match="stage 'rough' is not a finite number at step 5"):
        fit(plan)


def test_schedules() -> None:
    assert cosine(0.0) == 1 and cosine(0.5) == pytest.approx(0.5) and cosine(1.0) == pytest.approx(0)
    falling = linear_decay(0.5)
    assert falling(0.2) == 1 and falling(0.75) == pytest.approx(0.5) and falling(1.0) == 0


def test_a_last_update_that_destroys_the_model_is_a_divergence(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss before it is finite, so only the parameters show it."""
    update = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *arguments: Any, **named: Any) -> None:
        update(self, *arguments, **named)
        [parameter] = self.param_groups[0]["params"]
        if self.state[parameter]["step"] == plan.config.model_dump()["num_steps"]:
            parameter.data[0] = torch.nan

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(Diverged, match="logits is not a number after stage 'fine'"):
        fit(plan)


def test_stages_do_not_share_optimizers(plan: Plan) -> None:
    """Its state would be lost where a run is resumed at the beginning of the second stage."""
    model = new_model(plan)
    adam = torch.optim.Adam(model.parameters())
    stages = [Gradient(name, 1, 1, {"main": adam}, lambda batch, step: None) for name in ("one", "two")]
    model.stages = lambda data: stages  # type: ignore[method-assign, assignment]
    with pytest.raises(ValueError, match="the stages 'one' and 'two' share an optimizer"):
        Trainer().fit(model, data_for(plan, make_task(plan)))


@pytest.mark.parametrize("given", [None, "", "0"])
def test_where_there_is_no_device_torch_looks_for_none(
    plan: Plan, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimizers ask at every step; what the environment says of devices is as before in the end."""
    seen = []

    def should_stop() -> bool:
        seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return len(seen) == 3

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with pytest.raises(Interrupted):
        fit(plan, should_stop=should_stop)
    assert seen == [given or ""] * 3 and os.environ.get("CUDA_VISIBLE_DEVICES") == given
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Interrupted):
        fit(plan, should_stop=lambda: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")) or True)
    assert seen[-1] == given
