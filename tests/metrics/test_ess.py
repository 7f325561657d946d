"""Effective sample size: AR(1) closed form, a direct reference, degenerate chains, standard error."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.signal import lfilter
from torch import Tensor

from gmbench.metrics.ess import ess, ess_per_evaluation


def ar1(num_chains: int, num_steps: int, rho: float, rng: torch.Generator) -> Tensor:
    noise = torch.randn(num_chains, num_steps, generator=rng, dtype=torch.float64)
    noise[:, 1:] *= math.sqrt(1 - rho**2)  # stationary from the first step
    return torch.from_numpy(lfilter([1.0], [1.0, -rho], noise.numpy()))


def direct(series: Tensor) -> float:
    """The same estimator by plain sums over lags."""
    half = series.shape[1] // 2
    chains = torch.cat([series[:, :half], series[:, -half:]]).double()
    m, n = chains.shape
    centered = chains - chains.mean(1, keepdim=True)
    gamma = [float((centered[:, : n - t] * centered[:, t:]).sum(1).mean() / n) for t in range(n)]
    within = gamma[0] * n / (n - 1)
    pooled = within * (n - 1) / n + float(chains.mean(1).var())
    rho = [1.0] + [1 - (within - gamma[t] * n / (n - 1)) / pooled for t in range(1, n)]
    tau, least = -1.0, math.inf
    for t in range(0, n - 1, 2):
        pair = rho[t] + rho[t + 1]
        if pair <= 0:
            break
        least = min(least, pair)
        tau += 2 * least
    return series.numel() / max(tau, 1 / math.log10(m * n))


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_ar1_matches_the_closed_form(rho: float) -> None:
    series = ar1(16, 4000, rho, torch.Generator().manual_seed(0))
    estimate = ess(series)
    truth = series.numel() * (1 - rho) / (1 + rho)
    assert estimate.stderr is not None and estimate.stderr < 0.1 * truth
    assert estimate.value == pytest.approx(truth, rel=0.08)


def test_antithetic_chains_beat_independence() -> None:
    series = ar1(8, 2000, -0.5, torch.Generator().manual_seed(1))
    assert ess(series).value == pytest.approx(3 * series.numel(), rel=0.1)


def test_matches_the_direct_sums() -> None:
    rng = torch.Generator().manual_seed(2)
    for num_chains, num_steps in ((1, 64), (4, 51), (3, 200)):
        series = ar1(num_chains, num_steps, 0.7, rng)
        assert ess(series).value == pytest.approx(direct(series), rel=1e-9)


def test_predicts_the_variance_of_the_mean() -> None:
    rng = torch.Generator().manual_seed(3)
    series = ar1(600, 400, 0.8, rng)
    variance = float(series.mean(1).var())
    per_chain = ess(series).value / 600
    assert 1 / variance == pytest.approx(per_chain, rel=0.15)


def test_chains_stuck_in_different_modes_are_seen() -> None:
    rng = torch.Generator().manual_seed(4)
    series = 0.1 * torch.randn(8, 500, generator=rng) + torch.tensor([-1.0, 1.0]).repeat(4)[:, None]
    mixed = 0.1 * torch.randn(8, 500, generator=rng)
    assert ess(series).value < 10
    assert ess(mixed).value > 2000


def test_chains_that_never_move_are_worth_nothing_and_say_so() -> None:
    for series in (torch.ones(4, 100), torch.arange(4.0)[:, None].expand(4, 100)):
        constant = ess(series)
        assert constant.value == 0 and constant.kind == "lower_bound"
        assert constant.stderr is None and "constant" in constant.note
    one_moves = torch.ones(4, 100)
    one_moves[0, 50] = 0
    assert 0 < ess(one_moves).value < math.inf


def test_standard_error_covers() -> None:
    rng = torch.Generator().manual_seed(5)
    truth, inside = 10 * 4000 * (1 - 0.5) / (1 + 0.5), 0
    for _ in range(300):
        e = ess(ar1(10, 4000, 0.5, rng))
        assert e.stderr is not None
        inside += abs(e.value - truth) < 2.262 * e.stderr  # Student's t with 9 degrees of freedom
    assert 0.91 <= inside / 300 <= 0.98


def test_per_evaluation_divides_by_the_work_of_all_chains() -> None:
    series = ar1(4, 200, 0.5, torch.Generator().manual_seed(6))
    whole, each = ess(series), ess_per_evaluation(series, 200 * 16)
    assert each.value == pytest.approx(whole.value / (4 * 200 * 16))
    assert whole.stderr is not None and each.stderr == pytest.approx(whole.stderr / (4 * 200 * 16))


def test_few_chains_have_no_standard_error() -> None:
    estimate = ess(ar1(2, 100, 0.5, torch.Generator().manual_seed(7)))
    assert estimate.stderr is None and "2 chains" in estimate.note


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        ess(torch.zeros(100))
    with pytest.raises(ValueError, match="at least 8"):
        ess(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="finite"):
        ess(torch.full((2, 20), math.nan))
    with pytest.raises(ValueError, match="num_evaluations"):
        ess_per_evaluation(torch.zeros(2, 20), 0)
