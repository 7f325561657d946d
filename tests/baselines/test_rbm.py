"""The restricted Boltzmann machine: free energy, exact log Z, block Gibbs, and training by CD and PCD."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.rbm.model import RBM
from gmbench.metrics.harmonium import exact_log_partition
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Interrupted, Trainer


def build(dim: int, task: str = "synthetic2d", **changes: Any) -> RBM:
    return from_card(RBM, BinaryVector(dim), task, **changes)


def random_machine(dim: int, num_hidden: int, scale: float = 1.0) -> RBM:
    model = build(dim, num_hidden=num_hidden)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng(index)))
    return model


def joint(model: RBM) -> Tensor:
    """log of the unnormalised joint of all (x, h), (2^D, 2^H) float64."""
    W, b, c = (p.detach().double() for p in (model.weight, model.visible_bias, model.hidden_bias))
    x, h = all_states(W.shape[0]), all_states(W.shape[1])
    return x @ W @ h.T + (x @ b)[:, None] + (h @ c)[None, :]


def two_clusters() -> Tensor:
    """A distribution with two modes, all zeros and all ones, that independent bits miss."""
    ones = all_states(8).sum(1)
    return torch.softmax(-1.2 * torch.minimum(ones, 8 - ones), 0)


def data_from(probability: Tensor, dim: int) -> Data:
    states = all_states(dim).float()

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return states[torch.multinomial(probability, num, replacement=True, generator=generator)]

    return Data(BinaryVector(dim), None, draw, draw(100, rng(9)))


@pytest.mark.parametrize(("dim", "num_hidden"), [(6, 4), (4, 6)])
def test_free_energy_and_log_z_agree_with_the_joint(dim: int, num_hidden: int) -> None:
    model = random_machine(dim, num_hidden)
    log_joint = joint(model)
    torch.testing.assert_close(-model.energy(all_states(dim)).detach(), torch.logsumexp(log_joint, 1))
    torch.testing.assert_close(exact_log_partition(model.harmonium()), torch.logsumexp(log_joint.flatten(), 0))


def test_log_z_of_more_states_than_a_block_agrees_with_the_sum_over_x() -> None:
    model = random_machine(13, 14, scale=0.5)
    expected = torch.logsumexp(-model.energy(all_states(13)).detach(), 0)
    torch.testing.assert_close(exact_log_partition(model.harmonium()), expected)


def test_log_z_of_two_large_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        exact_log_partition(build(21, num_hidden=21).harmonium())


def test_block_gibbs_follows_its_exact_transition_law() -> None:
    model = random_machine(3, 2)
    log_joint = joint(model)
    to_hidden, to_visible = torch.softmax(log_joint, 1), torch.softmax(log_joint, 0)
    transition = to_hidden @ to_visible.T  # (2^D, 2^D)
    p = torch.softmax(torch.logsumexp(log_joint, 1), 0)
    torch.testing.assert_close(p[:, None] * transition, (p[:, None] * transition).T)  # what the kernel should satisfy
    kernel, num = model.sampler(), 20_000
    for start in (0, 5):
        x = all_states(3)[start].float().expand(num, -1)
        step = kernel.step(x, kernel.target, rng=rng(start))
        counts = torch.bincount(state_index(step.x), minlength=8).double()
        expected = transition[start] * num
        chi2 = float(((counts - expected).square() / expected).sum())
        assert chi2 < 7 + 5 * math.sqrt(14)
        assert step.num_evaluations == 2


def test_the_kernel_samples_what_the_energy_says() -> None:
    model = random_machine(4, 3)
    model.start_prob.fill_(0.5)
    drawn = model.sample(20_000, rng=rng(3))
    expected = torch.softmax(-model.energy(all_states(4)).detach(), 0) * 20_000
    counts = torch.bincount(state_index(drawn), minlength=16).double()
    assert float(((counts - expected).square() / expected).sum()) < 15 + 5 * math.sqrt(30)
    assert model.sample(7, rng=rng(4)).equal(model.sample(7, rng=rng(4)))


@pytest.mark.parametrize(("negatives", "bound"), [("pcd", 0.1), ("cd", 0.2)])
def test_the_exact_divergence_from_the_truth_falls(negatives: str, bound: float) -> None:
    truth = two_clusters()
    changes = {"num_hidden": 12, "num_chains": 256, "batch_size": 256, "sampling_steps": 2, "learning_rate": 0.02}
    model = build(8, negatives=negatives, num_steps=400, **changes)
    Trainer(seed=0).fit(model, data_from(truth, 8))
    log_q = -model.energy(all_states(8)).detach() - exact_log_partition(model.harmonium())
    assert float(log_q.exp().sum()) == pytest.approx(1, abs=1e-6)
    kl = float((truth * (truth.log() - log_q)).sum())
    p = truth @ all_states(8)
    log_independent = (all_states(8) * p.log() + (1 - all_states(8)) * (1 - p).log()).sum(1)
    independent = float((truth * (truth.log() - log_independent)).sum())
    assert kl < bound < 0.5 * independent


@pytest.mark.parametrize(("task", "dim"), [("ising", 100), ("synthetic2d", 32)])
def test_the_smoke_config_runs_and_offers_what_the_card_says(task: str, dim: int) -> None:
    for track in ("smoke", "small", "medium", "paper"):
        RBM.Config(**card_of(RBM).resolve(task, track))
    model = build(dim, task)
    Trainer(seed=0).fit(model, _bits(dim))
    assert {c for c in CAPABILITIES if offers(model, c)} == set(card_of(RBM).capabilities)
    samples = model.sample(5, rng=rng(2))
    model.space.validate(samples)
    assert model.energy(samples).shape == (5,)
    # block Gibbs needs few steps to the bits' means: P(x_i = 1) = .2
    assert float(model.sample(400, rng=rng(5)).mean()) == pytest.approx(0.2, abs=0.05)


def test_an_interrupted_fit_resumes_to_the_same_parameters(tmp_path: Path) -> None:
    whole, broken = (build(16, num_steps=12) for _ in range(2))
    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    Trainer(folder=tmp_path / "whole", seed=1).fit(whole, _bits(16))
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        Trainer(folder=tmp_path / "broken", seed=1, should_stop=lambda: next(calls) == 6).fit(broken, _bits(16))
    resumed = build(16, num_steps=12)
    Trainer(folder=tmp_path / "broken", seed=1).fit(resumed, _bits(16))
    for key, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key


def _bits(dim: int) -> Data:
    x = (torch.rand(500, dim, generator=rng(1)) < 0.2).float()

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return x[torch.randint(len(x), (num,), generator=generator)]

    return Data(BinaryVector(dim), x, draw, x[:100])


def test_features_are_the_means_of_the_hidden_bits() -> None:
    model = random_machine(4, 3)
    x = all_states(4)
    to_hidden = torch.softmax(joint(model), 1)  # (2^D, 2^H)
    torch.testing.assert_close(model.encode(x), to_hidden @ all_states(3))
    h = model.encode(x)
    expected = torch.sigmoid(model.visible_bias.detach().double() + h @ model.weight.detach().double().T)
    torch.testing.assert_close(model.reconstruct(x), expected)
