"""The KL term against torch.distributions, the gradient of free bits, and the schedules against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from building import rng
from gmbench.baselines.latent.kl import free_bits, gaussian_kl, log_ratio
from gmbench.baselines.latent.schedules import eight_phases, kl_weight


def test_the_kl_term_is_that_of_torch() -> None:
    mean, log_std = torch.randn(2, 50, 7, generator=rng())
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_std), expected)


def test_the_log_ratio_is_that_of_the_two_densities_and_averages_to_minus_the_kl() -> None:
    mean, log_std = torch.randn(2, 3, 4, generator=rng(1), dtype=torch.float64)
    noise = torch.randn(40_000, 3, 4, generator=rng(2), dtype=torch.float64)
    z = mean + log_std.exp() * noise
    found = log_ratio(z, noise, log_std)
    expected = (Normal(0.0, 1.0).log_prob(z) - Normal(mean, log_std.exp()).log_prob(z)).sum(-1)
    torch.testing.assert_close(found, expected)
    error = 5 * found.std(0) / math.sqrt(len(noise))
    assert ((found.mean(0) + gaussian_kl(mean, log_std).sum(-1)).abs() < error).all()


def test_free_bits_take_the_larger_of_floor_and_mean_and_no_gradient_below_the_floor() -> None:
    # means over the batch: .2, .5, 1.5; the first has an example above the floor, and is below it on average
    kl = torch.tensor([[0.4, 0.5, 1.0], [0.0, 0.5, 2.0]], requires_grad=True)
    total = free_bits(kl, 0.3)
    assert float(total.detach()) == pytest.approx(0.3 + 0.5 + 1.5)
    total.backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]


def test_no_free_bits_give_the_mean_kl() -> None:
    kl = torch.rand(5, 3, generator=rng(3), requires_grad=True)
    free_bits(kl, 0.0).backward()
    assert float(free_bits(kl.detach(), 0.0)) == pytest.approx(float(kl.detach().sum(1).mean()))
    assert kl.grad is not None
    torch.testing.assert_close(kl.grad, torch.full((5, 3), 0.2))


@pytest.mark.parametrize(
    ("fraction", "cyclical", "monotone"),
    [(0.0, 0.0, 0.0), (0.05, 0.4, 0.1), (0.125, 1.0, 0.25), (0.2, 1.0, 0.4), (0.25, 0.0, 0.5), (0.3, 0.4, 0.6),
     (0.5, 0.0, 1.0), (0.8125, 0.5, 1.0), (0.999, 1.0, 1.0)],
)  # fmt: skip
def test_the_weight_at_chosen_fractions(fraction: float, cyclical: float, monotone: float) -> None:
    assert kl_weight(fraction, "cyclical", num_cycles=4, ramp=0.5) == pytest.approx(cyclical)
    assert kl_weight(fraction, "monotone", num_cycles=4, ramp=0.5) == pytest.approx(monotone)
    assert kl_weight(fraction, "none", num_cycles=4, ramp=0.5) == 1.0


@pytest.mark.parametrize(("num_cycles", "ramp"), [(4, 0.5), (5, 0.25), (1, 1.0)])
def test_the_weight_follows_the_papers_formula_at_every_step(num_cycles: int, ramp: float) -> None:
    num_steps = 1000
    for t in range(1, num_steps + 1):
        tau = (t - 1) % math.ceil(num_steps / num_cycles) / (num_steps / num_cycles)
        beta = tau / ramp if tau <= ramp else 1.0
        found = kl_weight((t - 1) / num_steps, "cyclical", num_cycles=num_cycles, ramp=ramp)
        assert found == pytest.approx(beta, abs=1e-9), t


def test_the_eight_phases_take_three_times_as_many_passes_each() -> None:
    num_passes = sum(3**i for i in range(8))
    assert num_passes == 3280
    factors = [eight_phases((i + 0.5) / num_passes) for i in range(num_passes)]
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert factors == pytest.approx(expected)
    # where a phase begins, its rate holds
    assert eight_phases(0.0) == 1.0 and eight_phases(4 / num_passes) == pytest.approx(10 ** (-2 / 7))
