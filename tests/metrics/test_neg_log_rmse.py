"""-ln RMSE of couplings."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import root_mean_squared_error

from gmbench.metrics.neg_log_rmse import neg_log_rmse


def torus_couplings(side: int, sigma: float) -> torch.Tensor:
    sites = torch.arange(side * side).view(side, side)
    couplings = torch.zeros(side * side, side * side)
    for axis in (0, 1):
        neighbours = sites.roll(1, axis).flatten()
        couplings[sites.flatten(), neighbours] = sigma
        couplings[neighbours, sites.flatten()] = sigma
    return couplings


def test_the_zero_matrix_on_the_torus_is_the_closed_form() -> None:
    truth = torus_couplings(10, 0.1)
    # Four neighbours a site: -ln(σ √(4 / D)).
    assert neg_log_rmse(torch.zeros(100, 100), truth).value == pytest.approx(
        -math.log(0.1 * math.sqrt(4 / 100)), abs=1e-6
    )


def test_diagonal_and_zeros_count_and_scikit_learn_agrees() -> None:
    rng = torch.Generator().manual_seed(0)
    truth, estimate = torch.randn(7, 7, generator=rng), torch.randn(7, 7, generator=rng)
    reference = -math.log(root_mean_squared_error(truth.flatten().numpy(), estimate.flatten().numpy()))
    assert neg_log_rmse(estimate, truth).value == pytest.approx(reference, abs=1e-6)
    diagonal_only = neg_log_rmse(torch.eye(10), torch.zeros(10, 10))
    assert diagonal_only.value == pytest.approx(-math.log(math.sqrt(1 / 10)))


def test_moves_with_the_error() -> None:
    truth = torus_couplings(10, 0.1)
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(100, 100, generator=rng)
    near, far = neg_log_rmse(truth + 0.01 * noise, truth), neg_log_rmse(truth + 0.1 * noise, truth)
    assert near.value - far.value == pytest.approx(math.log(10), abs=1e-3)
    assert neg_log_rmse(-truth, truth).value < neg_log_rmse(torch.zeros(100, 100), truth).value < near.value


def test_equal_matrices_give_plus_infinity() -> None:
    estimate = neg_log_rmse(torch.eye(3), torch.eye(3))
    assert estimate.value == math.inf
    assert estimate.kind == "exact"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        neg_log_rmse(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="shape"):
        neg_log_rmse(torch.zeros(2, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="finite"):
        neg_log_rmse(torch.full((2, 2), math.nan), torch.zeros(2, 2))
