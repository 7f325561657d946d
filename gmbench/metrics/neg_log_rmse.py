"""How well the couplings of an Ising model were recovered: -ln RMSE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_finite, check_shape


def neg_log_rmse(estimate: Tensor, truth: Tensor) -> Estimate:
    """-ln sqrt(mean (Ĵ - J)²), natural log, over all D² entries, zeros and the diagonal included; higher is better.

    Exact for the given matrices: what varies is the fit, over seeds. Equal matrices give +inf.

    Arguments:
        estimate: Ĵ, (D, D).
        truth: J, (D, D), in the same convention (log p(s) = sᵀJs: both (i, j) and (j, i) count).

    Source: Oops I Took A Gradient: Scalable Sampling for Discrete Distributions, Grathwohl, Swersky, Hashemi, Duvenaud,
    Maddison, 2021, arXiv 2102.04509.
    """
    check_shape("truth", truth, ("D", "D"))
    if truth.shape[0] != truth.shape[1]:
        raise ValueError(f"truth must be a square matrix, not {tuple(truth.shape)}")
    check_shape("estimate", estimate, tuple(truth.shape))
    check_finite("estimate", estimate)
    check_finite("truth", truth)
    mean_square = float((estimate.to(truth.device, torch.float64) - truth.to(torch.float64)).square().mean())
    value = math.inf if mean_square == 0 else -0.5 * math.log(mean_square)
    return Estimate(value=value, kind="exact")
