"""The log of a mean of importance weights, with the delta method's standard error, its bias and the sample's ESS."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.metrics.checks import check_log_values, check_shape


class LogMean(NamedTuple):
    """log(mean w) of importance weights w."""

    value: float
    stderr: float
    """Delta method: sd(w) / (mean(w) √N)."""
    bias: float
    """How far the log of the mean lies below the log of the expectation on average, to first order: stderr² / 2."""
    ess: float
    """Kish's effective sample size (Σw)² / Σw², between 1 and N."""
    n: int


def log_mean_exp(log_weights: Tensor) -> LogMean:
    """Summarises independent log weights (N,), N at least 2, in float64.

    All weights zero give the value -inf with standard error inf.

    Source: Monte Carlo theory, methods and examples, Art Owen, 2013, chapter 9 (importance sampling).
    """
    check_shape("log_weights", log_weights, ("N",))
    check_log_values("log_weights", log_weights)
    n = len(log_weights)
    if n < 2:
        raise ValueError("at least 2 log weights are needed for a standard error")
    log_w = log_weights.to(torch.float64)
    peak = float(log_w.max())
    if peak == -math.inf:
        return LogMean(value=-math.inf, stderr=math.inf, bias=math.inf, ess=0.0, n=n)
    w = (log_w - peak).exp()
    mean = float(w.mean())
    stderr = float(w.std()) / (mean * math.sqrt(n))
    ess = float(w.sum() ** 2 / w.square().sum())
    return LogMean(value=peak + math.log(mean), stderr=stderr, bias=stderr**2 / 2, ess=ess, n=n)
