"""The convolutional energy: its network on any layout, training from three kinds of starts, samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.ebm_resnet.model import ResNetEBM
from gmbench.baselines.energy.ebm_resnet.network import ResidualEnergy
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.kernel import Transition
from gmbench.samplers.target import Target, flip_delta, flipped
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Interrupted, Trainer


def build(layout: tuple[int, ...], preset: str = "", **changes: Any) -> ResNetEBM:
    return from_card(ResNetEBM, BinaryVector(math.prod(layout), layout), "dynamic_mnist", preset, **changes)


def network(layout: tuple[int, ...], dim: int) -> ResidualEnergy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResidualEnergy(layout, dim, channels=6, num_halvings=2, num_blocks=1)


def data_of(probability: Tensor, layout: tuple[int, ...]) -> Data:
    dim = math.prod(layout)
    states = all_states(dim).float()

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return states[torch.multinomial(probability, num, replacement=True, generator=generator)]

    return Data(BinaryVector(dim, layout), None, draw, draw(100, rng(9)))


def two_clusters(dim: int) -> Tensor:
    """A distribution with two modes, all zeros and all ones, that independent bits miss."""
    ones = all_states(dim).sum(1)
    return torch.softmax(-1.2 * torch.minimum(ones, dim - ones), 0)


def kl(truth: Tensor, model: ResNetEBM) -> float:
    states = all_states(model.space.dim).float()  # type: ignore[attr-defined]
    log_q = torch.log_softmax(-model.energy(states).detach().double(), 0)
    return float((truth * (truth.log() - log_q)).sum())


def kl_of_independent_bits(truth: Tensor) -> float:
    states = all_states(int(math.log2(len(truth))))
    p = truth @ states
    return float((truth * (truth.log() - (states * p.log() + (1 - states) * (1 - p).log()).sum(1))).sum())


@pytest.mark.parametrize("layout", [(), (10,), (2, 5), (1, 7), (4, 4), (8, 8), (13, 3)])
def test_the_network_works_on_every_layout_of_at_most_two_axes(layout: tuple[int, ...]) -> None:
    dim = math.prod(layout) if layout else 9
    x = (torch.rand(5, dim, generator=rng()) < 0.4).float()
    value = network(layout, dim).log_prob(x)
    assert value.shape == (5,) and len(value.unique()) == 5


def test_three_axes_are_refused() -> None:
    with pytest.raises(UserError, match="one or two axes"):
        network((2, 2, 2), 8)


def test_the_network_sees_the_image_and_not_only_its_bits() -> None:
    net = network((4, 4), 16)
    x = (torch.rand(1, 16, generator=rng(1)) < 0.4).float()
    shuffled = x[:, torch.randperm(16, generator=rng(2))]
    assert abs(float(net.log_prob(x).detach() - net.log_prob(shuffled).detach())) > 1e-5


def test_without_its_network_the_energy_is_the_base() -> None:
    model = build((3, 3))
    p = torch.linspace(0.1, 0.9, 9)
    with torch.no_grad():
        model.averaged.last.weight.zero_()
        model.averaged.base_logits.copy_(torch.logit(p))
    x = all_states(9).float()
    log_p = torch.log_softmax(-model.energy(x).double(), 0)
    expected = torch.distributions.Bernoulli(p).log_prob(x).sum(1).double()
    torch.testing.assert_close(log_p, expected, rtol=1e-5, atol=1e-5)


def test_energies_do_not_depend_on_how_a_batch_is_split() -> None:
    model = build((4, 4))
    x = (torch.rand(50, 16, generator=rng(1)) < 0.4).float()
    whole = model.energy(x)
    model.averaged.rows = 7
    torch.testing.assert_close(model.energy(x), whole)
    delta = flip_delta(model.averaged, x[:3])
    for i in (0, 5, 15):
        expected = model.energy(x[:3]) - model.energy(flipped(x[:3], i))
        torch.testing.assert_close(delta[:, i], expected, rtol=1e-4, atol=1e-5)
    assert model.energy(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("layout", "preset"), [((4, 4), ""), ((2, 3), "cd")])
def test_the_exact_divergence_from_the_truth_falls(layout: tuple[int, ...], preset: str) -> None:
    truth = two_clusters(math.prod(layout))
    shape = {"channels": 16, "num_halvings": 1, "num_blocks": 0, "buffer_size": 400}
    changes = {"num_steps": 130, "batch_size": 64, "learning_rate": 0.01, "average": 0.95, "sampling_steps": 6}
    model = build(layout, preset, **shape, **changes)
    Trainer(seed=0).fit(model, data_of(truth, layout))
    assert kl(truth, model) < 0.3 * kl_of_independent_bits(truth)


def test_samples_follow_the_averaged_energy() -> None:
    model = build((3, 2), sample_steps=60, num_halvings=1, num_blocks=0)
    with torch.no_grad():
        model.averaged.base_logits.copy_(torch.linspace(-1, 1, 6))
        model.averaged.last.weight.mul_(60)  # weights that matter
        model.net.last.weight.zero_()
    num = 4000
    drawn = model.sample(num, rng=rng(7))
    expected = torch.softmax(-model.energy(all_states(6).float()).double(), 0) * num
    counts = torch.bincount(state_index(drawn), minlength=64).double()

    def chi2(expected: Tensor) -> float:
        return float(((counts - expected).square() / expected)[expected > 5].sum())

    degrees = int((expected > 5).sum())
    bound = degrees + 5 * math.sqrt(2 * degrees)
    assert chi2(expected) < bound
    base = torch.distributions.Bernoulli(logits=model.averaged.base_logits).log_prob(all_states(6).float()).sum(1)
    assert chi2(base.double().exp() * num) > 2 * bound  # the network matters


class Recorder:
    """A kernel that notes where chains start and flips the first bit of every one."""

    def __init__(self) -> None:
        self.starts: list[Tensor] = []

    def step(self, x: Tensor, target: Target, *, rng: torch.Generator) -> Transition:
        self.starts.append(x.clone())
        y = x.clone()
        y[:, 0] = 1 - y[:, 0]
        return Transition(y, x.new_ones(()), 1)


@pytest.mark.parametrize("preset", ["", "cd", "noise"])
def test_chains_start_where_the_preset_says(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recorder = build((2, 3), preset, num_steps=4, sampling_steps=1, batch_size=50, buffer_size=60), Recorder()
    monkeypatch.setattr(model, "sampler", lambda: recorder)
    only = torch.tensor([[1.0, 0, 1, 0, 1, 1]])  # the data: one point
    data = Data(BinaryVector(6, (2, 3)), None, lambda num, generator: only.expand(num, 6).clone(), only)
    Trainer(seed=0).fit(model, data)
    assert [len(starts) for starts in recorder.starts] == [50] * 4
    at_data = [bool((starts == only).all()) for starts in recorder.starts]
    # chains that start as independent bits of these means have a first bit of 1 until it is flipped
    share = [float(starts[:, 0].mean()) for starts in recorder.starts]
    if preset == "cd":
        assert all(at_data) and model.chains.shape == (0, 6)
    elif preset == "noise":
        assert not any(at_data) and min(share) > 0.85 and model.chains.shape == (0, 6)
    else:
        # 50 of 60 chains move each time, so at least 40 of the second 50 starts have been flipped once
        assert share[0] > 0.85 and share[1] < 0.3 and model.chains.shape == (60, 6)


def test_short_chains_from_noise_become_a_generator() -> None:
    truth = two_clusters(6)
    shape = {"channels": 16, "num_halvings": 1, "num_blocks": 0}
    changes = {"sampling_steps": 6, "sample_steps": 1, "num_steps": 80, "batch_size": 64, "learning_rate": 0.02}
    model = build((2, 3), "noise", average=0.9, **shape, **changes)
    Trainer(seed=0).fit(model, data_of(truth, (2, 3)))
    num = 4000

    def distance(x: Tensor) -> float:
        return float((torch.bincount(state_index(x), minlength=64) / num - truth).abs().sum() / 2)

    assert distance(model.sample(num, rng=rng(1))) < 0.4 * distance(model._starts(num, rng(1)))


def test_the_fitted_model_is_the_average_of_the_weights_after_a_warm_up() -> None:
    data = data_of(two_clusters(6), (2, 3))
    first = build((2, 3), num_steps=1, warmup=0.5)
    before = [p.detach().clone() for p in first.net.parameters()]
    Trainer(seed=0).fit(first, data)
    assert all(p.equal(q) for p, q in zip(first.net.parameters(), before, strict=True))  # the rate starts at 0
    decay = 0.7
    model = build((2, 3), num_steps=1, warmup=0.0, average=decay)
    Trainer(seed=0).fit(model, data)
    for old, new, average in zip(before, model.net.parameters(), model.averaged.parameters(), strict=True):
        torch.testing.assert_close(average, decay * old + (1 - decay) * new.detach())
    assert not model.net.last.weight.equal(model.averaged.last.weight)


@pytest.mark.parametrize("preset", ["", "cd", "noise"])
def test_the_smoke_config_resumes_to_the_same_state(preset: str, tmp_path: Path) -> None:
    for task in ("ising", "dynamic_mnist"):
        for track in ("smoke", "small", "medium", "paper"):
            ResNetEBM.Config(**card_of(ResNetEBM).resolve(task, track, preset))
    data = data_of(two_clusters(6), (2, 3))
    whole, broken, resumed = (build((2, 3), preset, num_steps=6, sampling_steps=2) for _ in range(3))
    Trainer(seed=1).fit(whole, data)
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        Trainer(folder=tmp_path, seed=1, should_stop=lambda: next(calls) == 3).fit(broken, data)
    Trainer(folder=tmp_path, seed=1).fit(resumed, data)
    for key, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key
    assert {c for c in CAPABILITIES if offers(whole, c)} == set(card_of(ResNetEBM).capabilities)
    samples = whole.sample(5, rng=rng(2))
    whole.space.validate(samples)
    moved = whole.sampler().step(samples, whole.averaged, rng=rng(3))
    whole.space.validate(moved.x)
