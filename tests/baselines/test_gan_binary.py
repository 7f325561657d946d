"""The GAN on bits: what its gradients are, and that it learns which patterns exist."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from building import card_of, from_card, rng
from gmbench.baselines.adversarial.gan_binary.model import BinaryGAN
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def build(dim: int, **changes: Any) -> BinaryGAN:
    return from_card(BinaryGAN, BinaryVector(dim), "dynamic_mnist", **changes)


def bars_and_stripes(side: int) -> Tensor:
    """Every image whose rows are each all on or all off, or whose columns are, (2^(side + 1) - 2, side^2)."""
    lines = torch.tensor(list(itertools.product((0.0, 1.0), repeat=side)))
    rows = lines[:, :, None].expand(-1, side, side).flatten(1)
    columns = lines[:, None, :].expand(-1, side, side).flatten(1)
    return torch.cat([rows, columns]).unique(dim=0)


def data_of(patterns: Tensor) -> Data:
    def draw(num: int, generator: Generator) -> Tensor:
        return patterns[torch.randint(len(patterns), (num,), generator=generator)]

    return Data(BinaryVector(patterns.shape[1], (4, 4)), None, draw, patterns)


def test_many_samples_become_valid_patterns_of_many_kinds() -> None:
    patterns = bars_and_stripes(4)
    assert len(patterns) == 30
    rates = {"generator_rate": 0.005, "discriminator_rate": 0.002, "r1": 0.03, "ema": 0.98}
    model = build(16, hidden=64, num_layers=2, num_latents=16, num_steps=600, batch_size=64, **rates)
    valid = torch.zeros(2**16, dtype=torch.bool)
    valid[state_index(patterns)] = True
    before = state_index(model.sample(4000, rng=rng(1)))
    Trainer(seed=0).fit(model, data_of(patterns))
    after = state_index(model.sample(4000, rng=rng(1)))
    assert float(valid[before].double().mean()) < 0.005
    assert float(valid[after].double().mean()) > 0.15  # of all images one in 2000 is valid
    assert len(after[valid[after]].unique()) >= 10


def test_the_straight_through_gradient_is_the_discriminators_slope_times_that_of_the_means() -> None:
    model = build(6)
    spins = model.generate(model.generator, 32, rng=rng(3))
    assert set(spins.detach().unique().tolist()) == {-1.0, 1.0}
    parameters = list(model.generator.parameters())
    found = torch.autograd.grad(model.generator_loss(32, rng=rng(3)), parameters)
    # by hand: dL/dx at the sampled bits, times d mean / d parameters
    corner = spins.detach().requires_grad_()
    (slope,) = torch.autograd.grad(softplus(-model.discriminator(corner)).mean(), corner)
    z = torch.randn(32, model.config.num_latents, generator=rng(3))
    mean = 2 * torch.sigmoid(model.generator(z)) - 1
    expected = torch.autograd.grad((slope * mean).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        assert float(a.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


def test_samples_have_the_generators_means() -> None:
    model, num = build(5), 40_000
    with torch.no_grad():
        for parameter in model.average.parameters():
            parameter.mul_(3)
        z = torch.randn(num, model.config.num_latents, generator=rng(8))
        expected = torch.sigmoid(model.average(z)).double().mean(0)
    x = model.sample(num, rng=rng(4))
    model.space.validate(x)
    error = (x.double().mean(0) - expected).abs()
    assert float(error.max()) < 5 * (2 * 0.25 / num) ** 0.5
    assert float((expected - 0.5).abs().max()) > 0.02
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert model.sample(9, rng=rng(4)).equal(model.sample(9, rng=rng(4)))
    assert torch.get_rng_state().equal(state)


def test_the_discriminators_loss_and_its_penalty_are_as_defined() -> None:
    x = all_states(4).float()
    model, free = build(4, r1=3.0), build(4, r1=0.0)
    fake = free.generate(free.generator, 16, rng=rng(6)).detach()
    plain = free.discriminator_loss(x, rng=rng(6))
    score_real, score_fake = free.discriminator(2 * x - 1), free.discriminator(fake)
    expected = -(score_real.sigmoid().log().mean() + (1 - score_fake.sigmoid()).log().mean())
    torch.testing.assert_close(plain, expected)
    penalty = 0.0
    for row in 2 * x - 1:
        point = row.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.discriminator(point[None])[0, 0], point)
        penalty += 3.0 / 2 * float(slope.square().sum()) / 16
    found = model.discriminator_loss(x, rng=rng(6)).detach()
    assert float(found - plain.detach()) == pytest.approx(penalty, rel=1e-4)
    gradients = torch.autograd.grad(plain, list(free.generator.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)  # the discriminator's loss moves the discriminator only


def test_the_model_is_the_generators_moving_average() -> None:
    patterns = bars_and_stripes(4)
    model = build(16, num_steps=1, ema=0.999)
    first = [parameter.detach().clone() for parameter in model.generator.parameters()]
    Trainer(seed=0).fit(model, data_of(patterns))
    decay = 1 / 10  # the first step's: 1 / (0 + 10)
    for mean, old, new in zip(model.average.parameters(), first, model.generator.parameters(), strict=True):
        torch.testing.assert_close(mean, decay * old + (1 - decay) * new.detach())
        assert not new.equal(old)


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_code(track: str) -> None:
    for task in ("dynamic_mnist", "synthetic2d", "ising"):
        BinaryGAN.Config(**card_of(BinaryGAN).resolve(task, track))
    assert {c for c in CAPABILITIES if offers(build(4), c)} == set(card_of(BinaryGAN).capabilities)
