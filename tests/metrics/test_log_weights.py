"""The log of a mean of weights: log-normal closed form, scale, coverage, bias."""

from __future__ import annotations

import math

import pytest
import torch

from gmbench.metrics.log_weights import log_mean_exp


def test_log_normal_weights_shifted_far_beyond_float_range() -> None:
    rng = torch.Generator().manual_seed(0)
    log_w = torch.randn(20_000, generator=rng, dtype=torch.float64) + 2000  # E w = e^(2000 + 1/2)
    result = log_mean_exp(log_w)
    assert abs(result.value - 2000.5) < 3 * result.stderr
    # ESS / N -> (E w)² / E w² = e^-1 and stderr -> sqrt((e - 1) / N)
    assert result.ess / 20_000 == pytest.approx(math.exp(-1), rel=0.1)
    assert result.stderr == pytest.approx(math.sqrt((math.e - 1) / 20_000), rel=0.1)


def test_equal_weights_have_no_error() -> None:
    result = log_mean_exp(torch.full((10,), -3.0))
    assert (result.value, result.stderr, result.bias) == (pytest.approx(-3), 0, 0)
    assert result.ess == pytest.approx(10)


def test_coverage_and_bias() -> None:
    rng = torch.Generator().manual_seed(1)
    results = [log_mean_exp(0.5 * torch.randn(400, generator=rng)) for _ in range(400)]
    inside = sum(abs(r.value - 0.125) < 1.96 * r.stderr for r in results)
    assert 0.91 <= inside / 400 <= 0.98
    many = 0.5 * torch.randn(200_000, 20, generator=rng)  # the bias needs far more repetitions than its estimate
    shortfall = 0.125 - float((torch.logsumexp(many, 1) - math.log(20)).mean())
    assert shortfall > 0.005
    assert sum(log_mean_exp(row).bias for row in many[:1000]) / 1000 == pytest.approx(shortfall, rel=0.15)


def test_all_zero_weights_and_bad_input() -> None:
    nothing = log_mean_exp(torch.full((3,), -math.inf))
    assert nothing.value == -math.inf and nothing.stderr == math.inf and nothing.ess == 0
    assert log_mean_exp(torch.tensor([-math.inf, 0.0])).value == pytest.approx(-math.log(2))
    with pytest.raises(ValueError, match="NaN"):
        log_mean_exp(torch.tensor([math.nan, 0.0]))
    with pytest.raises(ValueError, match="at least 2"):
        log_mean_exp(torch.zeros(1))
