"""EB-GFN as a plugin: fitted by the harness, both of its distributions against enumeration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.ebm_gfn import model as module
from gmbench.baselines.energy.ebm_gfn.exact import all_vectors, terminal_log_prob
from gmbench.baselines.energy.ebm_gfn.model import EBMGFlowNet
from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.target import FunctionTarget
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Diverged, Gradient, Interrupted, Trainer

TINY = {"hidden": 32, "num_layers": 2, "policy_hidden": 32, "policy_layers": 2}


def build(dim: int, task: str, track: str = "smoke", preset: str = "", **changes: Any) -> EBMGFlowNet:
    return from_card(EBMGFlowNet, BinaryVector(dim), task, preset, track=track, **changes)


def fixed(x: Tensor) -> Data:
    def draw(num: int, generator: torch.Generator) -> Tensor:
        return x[torch.randint(len(x), (num,), generator=generator)]

    return Data(BinaryVector(x.shape[1]), x, draw, x[:100])


def two_clusters(dim: int = 8) -> Tensor:
    """Probabilities (2^D,) with two modes, all zeros and all ones, that independent bits miss."""
    ones = all_vectors(dim).sum(1)
    return torch.softmax(-1.2 * torch.minimum(ones, dim - ones).double(), 0)


def online(probability: Tensor, dim: int) -> Data:
    states = all_vectors(dim)

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return states[torch.multinomial(probability, num, replacement=True, generator=generator)]

    return Data(BinaryVector(dim), None, draw, draw(100, rng(9)))


def kl(p: Tensor, log_q: Tensor) -> float:
    return float((p * (p.log() - log_q)).sum())


def energy_log_prob(model: EBMGFlowNet, dim: int) -> Tensor:
    return torch.log_softmax(-model.energy(all_vectors(dim)).detach().double(), 0)


@pytest.fixture(scope="module", params=["learned", "uniform"])
def fitted(request: pytest.FixtureRequest) -> EBMGFlowNet:
    """A model fitted to the two clusters, one for each backward policy."""
    model = build(
        8, "synthetic2d", **TINY, backward=request.param, num_steps=200, batch_size=64, policy_batch_size=32,
        learning_rate=0.01, policy_learning_rate=0.01, log_z_learning_rate=0.3,
    )  # fmt: skip
    Trainer(seed=0).fit(model, online(two_clusters(), 8))
    return model


# --- what is learned ---


def test_finds_the_couplings_of_a_small_ising_model() -> None:
    J = couplings(4, 0.15).float()
    model = build(16, "ising", **TINY, num_steps=150, batch_size=512, policy_batch_size=16, learning_rate=0.01)
    Trainer(seed=0).fit(model, fixed(exact_samples(4, 0.15, 2000, rng=rng(5))))
    found = model.couplings()
    assert found.equal(found.T) and not bool(found.diagonal().any()) and not found.requires_grad
    rmse, zero = float((found - J).square().mean().sqrt()), float(J.square().mean().sqrt())
    assert rmse < 0.35 * zero
    assert float(found[J > 0].mean()) == pytest.approx(0.15, abs=0.03)  # the scale of s'Js, not half or twice it


def test_both_distributions_approach_the_truth(fitted: EBMGFlowNet) -> None:
    truth, start = two_clusters(), build(8, "synthetic2d", **TINY)
    assert kl(truth, energy_log_prob(start, 8)) > 0.5 and kl(truth, terminal_log_prob(start.policy)) > 0.5
    assert kl(truth, energy_log_prob(fitted, 8)) < 0.15
    assert kl(truth, terminal_log_prob(fitted.policy)) < 0.15


def test_the_gflownet_knows_the_log_z_of_the_energy(fitted: EBMGFlowNet) -> None:
    log_z = float(torch.logsumexp(-fitted.energy(all_vectors(8)).detach().double(), 0))
    assert float(fitted.policy.log_z.detach()) == pytest.approx(log_z, abs=0.25)


def test_samples_are_the_gflownets(fitted: EBMGFlowNet) -> None:
    num, p = 20_000, terminal_log_prob(fitted.policy).exp()
    x = fitted.sample(num, rng=rng(1))
    fitted.space.validate(x)
    counts = torch.bincount((x.long() << torch.arange(8)).sum(1), minlength=256).double()
    large = p * num > 5
    chi2 = float(((counts - p * num)[large].square() / (p * num)[large]).sum())
    assert chi2 < int(large.sum()) + 5 * math.sqrt(2 * int(large.sum()))


# --- the bound ---


@pytest.mark.parametrize("backward", ["learned", "uniform"])
def test_the_bound_is_below_and_approaches_the_exact_log_p(backward: str) -> None:
    first = build(8, "synthetic2d", **TINY, backward=backward)
    with torch.no_grad():
        first.policy.mlp.layers[-1].weight.mul_(8)  # orders disagree far more than in a fitted policy
    x, exact = all_vectors(8), terminal_log_prob(first.policy)
    gaps = {}
    for num in (1, 10, 200):
        model = EBMGFlowNet(first.config.model_copy(update={"num_trajectories": num}), BinaryVector(8))
        model.load_state_dict(first.state_dict())
        assert model.likelihood.key == f"gfn.traj{num}" and model.likelihood.kind == "lower_bound"
        gaps[num] = float((exact.exp() * (exact - model.log_prob(x, rng=rng(1)))).sum())
    # The noise of one gap is about .002 at 10 trajectories, and falls as their number's root.
    assert gaps[1] > 0.05 and gaps[10] < 0.5 * gaps[1] and abs(gaps[200]) < 0.03 * gaps[1]


def test_the_bound_is_stochastic_and_reproducible(fitted: EBMGFlowNet) -> None:
    x = all_vectors(8)[:20]
    assert fitted.log_prob(x, rng=rng(1)).equal(fitted.log_prob(x, rng=rng(1)))
    assert not fitted.log_prob(x, rng=rng(1)).equal(fitted.log_prob(x, rng=rng(2)))
    assert not fitted.log_prob(x, rng=rng(1)).requires_grad


@pytest.mark.parametrize("backward", ["learned", "uniform"])
def test_an_untrained_model_is_near_uniform_with_the_right_sign(backward: str) -> None:
    """Published code gives +22.19 for one backward policy, where 32 nearly fair bits have log p = -22.18."""
    model = build(32, "synthetic2d", backward=backward, num_trajectories=4)
    x = (torch.rand(50, 32, generator=rng(2)) < 0.5).float()
    assert float(model.log_prob(x, rng=rng(3)).mean()) == pytest.approx(-32 * math.log(2), abs=0.5)


# --- the sampler, and the rule of acceptance ---


def test_the_sampler_leaves_the_energy_invariant_whatever_the_policy() -> None:
    model = build(8, "synthetic2d", **TINY)  # an untrained policy
    target = FunctionTarget(lambda x: -2.0 * (x.sum(1) - 2).abs())
    p = torch.softmax(target.log_prob(all_vectors(8)).double(), 0)
    num = 20_000
    x = all_vectors(8)[torch.multinomial(p, num, replacement=True, generator=rng(4))]
    kernel, generator = model.sampler(), rng(5)
    moved = kernel.step(x, target, rng=generator)
    model.space.validate(moved.x)
    assert 0.1 < float(moved.accept_rate) < 0.99 and not moved.x.equal(x)
    assert moved.num_evaluations == 2 * 4 + 2
    count = torch.bincount(moved.x.sum(1).long(), minlength=9).double()
    expected = num * torch.stack([p[all_vectors(8).sum(1) == k].sum() for k in range(9)])
    assert float(((count - expected).abs() / expected.clamp(min=1).sqrt()).max()) < 4.5


def log_of_a_fit(rule: str, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The acceptance rates of the negatives of a short fit."""
    rates: list[float] = []
    original = module.back_and_forth

    def spy(*args: Any, **kwargs: Any) -> Any:
        assert kwargs["rule"] == (None if rule == "none" else rule)
        found = original(*args, **kwargs)
        rates.append(float(found.accept_rate))
        return found

    monkeypatch.setattr(module, "back_and_forth", spy)
    Trainer(seed=0).fit(build(8, "synthetic2d", **TINY, rule=rule, num_steps=30), online(two_clusters(), 8))
    return rates


def test_each_rule_of_acceptance_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = {}
    for rule in ("metropolis", "barker", "none"):
        with monkeypatch.context() as patch:
            rates = log_of_a_fit(rule, patch)
        assert len(rates) == 30
        mean[rule] = sum(rates) / 30
    assert mean["none"] == 1 and 0.7 < mean["metropolis"] < 1
    assert 0.35 < mean["barker"] < 0.6  # sigmoid of a log ratio near 0 is one half


def test_k_grows_from_one_to_all_locations_over_the_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = module.back_and_forth

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["num_steps"])
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "back_and_forth", spy)
    Trainer(seed=0).fit(build(8, "synthetic2d", **TINY, num_steps=16, warmup=0.5), online(two_clusters(), 8))
    assert seen == [*range(1, 9), *[8] * 8]


# --- the harness ---


@pytest.mark.parametrize(("task", "preset"), [("ising", "l1"), ("synthetic2d", "barker")])
def test_an_interrupted_fit_resumes_to_the_same_parameters(task: str, preset: str, tmp_path: Path) -> None:
    changes = {**TINY, "num_steps": 9, "path_steps": 2, "batch_size": 32, "policy_batch_size": 8}
    data = fixed(exact_samples(4, 0.1, 200, rng=rng(4)))
    whole, broken = (build(16, task, preset=preset, **changes) for _ in range(2))
    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    Trainer(folder=tmp_path / "whole", seed=1).fit(whole, data)
    interruptions = 0
    for stop_after in (3, 2):  # inside the search of l1 where there is one, and soon again
        calls = iter(range(1000))

        def stop(calls: Any = calls, limit: int = stop_after) -> bool:
            return next(calls) == limit

        with pytest.raises(Interrupted):
            Trainer(folder=tmp_path / "broken", seed=1, should_stop=stop).fit(broken, data)
        interruptions += 1
        broken = build(16, task, preset=preset, **changes)
    cost = Trainer(folder=tmp_path / "broken", seed=1).fit(broken, data)
    assert interruptions == cost.resumes == 2
    assert whole.state_dict().keys() == broken.state_dict().keys()
    for key, value in whole.state_dict().items():
        assert value.equal(broken.state_dict()[key]), key
    assert whole.sample(20, rng=rng(3)).equal(broken.sample(20, rng=rng(3)))


def test_saved_weights_give_the_same_model(fitted: EBMGFlowNet, tmp_path: Path) -> None:
    save_file(fitted.state_dict(), tmp_path / "weights.safetensors")
    again = EBMGFlowNet(fitted.config, BinaryVector(8))
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = all_vectors(8)
    assert again.energy(x).equal(fitted.energy(x))
    assert again.sample(30, rng=rng(1)).equal(fitted.sample(30, rng=rng(1)))
    assert again.log_prob(x, rng=rng(2)).equal(fitted.log_prob(x, rng=rng(2)))


def test_a_fit_is_a_function_of_its_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        model = build(8, "synthetic2d", **TINY, num_steps=5)
        Trainer(seed=seed).fit(model, online(two_clusters(), 8))
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert states[0].equal(states[1]) and not states[0].equal(states[2])


def test_every_parameter_is_trained() -> None:
    for task in ("ising", "synthetic2d"):
        model = build(16, task, num_steps=3)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        Trainer(seed=0).fit(model, fixed(exact_samples(4, 0.1, 200, rng=rng(4))))
        for name, p in model.named_parameters():
            # A constant added to log f cancels in the energy's loss: the last bias has no gradient.
            assert not p.equal(before[name]) or (name.startswith("net.") and p.numel() == 1), name


def test_the_batch_sizes_are_the_configs() -> None:
    """The policy sees its own number of data, the energy all of the batch."""
    model = build(8, "synthetic2d", **TINY, batch_size=48, policy_batch_size=7)
    (stage,) = model.stages(online(two_clusters(), 8))
    assert isinstance(stage, Gradient) and stage.batch_size == 48 and stage.num_steps == model.config.num_steps


def test_all_rows_lead_backwards_also_where_a_batch_is_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    x = exact_samples(4, 0.1, 64, rng=rng(4))
    seen: list[Tensor] = []
    original = module.trajectory_balance

    def spy(policy: Any, log_f: Any, x_data: Tensor, **kwargs: Any) -> Any:
        seen.append(x_data)
        return original(policy, log_f, x_data, **kwargs)

    monkeypatch.setattr(module, "trajectory_balance", spy)
    Trainer(seed=0).fit(build(16, "ising", batch_size=64, policy_batch_size=8, num_steps=20), fixed(x))
    assert len(torch.cat(seen).unique(dim=0)) > 40


def test_a_diverging_energy_is_noticed() -> None:
    model = build(8, "synthetic2d", **TINY, num_steps=5)
    with torch.no_grad():
        next(model.net.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match=r"policy of stage 'fit' .* at step 0"):
        Trainer(seed=0).fit(model, online(two_clusters(), 8))


# --- the card ---


def test_a_perceptron_declines_couplings_and_a_penalty_on_them() -> None:
    with pytest.raises(MissingCapability, match="perceptron has no couplings"):
        build(8, "synthetic2d", **TINY).couplings()
    with pytest.raises(UserError, match="quadratic"):
        build(8, "synthetic2d", **TINY, l1=0.1)


@pytest.mark.parametrize("task", ["ising", "synthetic2d"])
def test_every_track_and_preset_of_the_card_is_a_valid_config(task: str) -> None:
    for track in ("smoke", "small", "medium", "paper"):
        config = EBMGFlowNet.Config(**card_of(EBMGFlowNet).resolve(task, track))
        assert config.energy == ("quadratic" if task == "ising" else "mlp")
        assert config.policy_batch_size <= config.batch_size  # else fewer data lead backwards than are asked for
        for name, preset in card_of(EBMGFlowNet).presets.items():
            if not preset.tasks or task in preset.tasks:
                changed = EBMGFlowNet.Config(**card_of(EBMGFlowNet).resolve(task, track, name))
                assert changed != config
                if track == "small":
                    assert {key: getattr(changed, key) for key in preset.config} == preset.config
                EBMGFlowNet(changed, BinaryVector(16))
    assert card_of(EBMGFlowNet).presets["l1"].tasks == ["ising"] and "barker" in card_of(EBMGFlowNet).presets


def test_offers_what_the_card_says() -> None:
    assert {c for c in CAPABILITIES if offers(build(8, "ising"), c)} == set(card_of(EBMGFlowNet).capabilities)


@pytest.mark.parametrize("wrong", [{"rule": "glauber"}, {"back_ratio": 1.5}, {"num_steps": 0}, {"backward": "none"}])
def test_values_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build(8, "ising", **wrong)


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ValidationError):
        build(8, "ising", l1=-0.1)
