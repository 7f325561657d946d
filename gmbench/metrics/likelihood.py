"""Negative log-likelihood and its paired excess over the truth, in nats, with what a bound on log p makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate, Kind
from gmbench.metrics.checks import check_finite, check_log_values, check_shape

# A lower bound on log p is an upper bound on minus log p. Exact log-probabilities make their mean over test points an
# unbiased estimate of the expectation over the data, no longer an exact number.
_KIND_OF_NEGATIVE: dict[Kind, Kind] = {
    "exact": "unbiased",
    "unbiased": "unbiased",
    "consistent": "consistent",
    "lower_bound": "upper_bound",
    "upper_bound": "lower_bound",
}


def nll(log_prob: Tensor, kind: Kind, *, log_z_stderr: float = 0.0) -> Estimate:
    """The mean of -log p over test points, in nats per point.

    A test point of probability 0 makes it +inf. The per-point values are `-log_prob`.

    Arguments:
        log_prob: Log-likelihood of each test point, (N,), nats.
        kind: What `log_prob` is of log p; a lower bound gives an upper bound on the NLL, which is conservative.
        log_z_stderr: Standard error of a log Z that all points share; added in quadrature and named in the note.
    """
    _check_log_prob("log_prob", log_prob)
    return _mean(-log_prob.to(torch.float64), kind, log_z_stderr)


def excess_nats(log_prob_model: Tensor, log_prob_truth: Tensor, kind: Kind, *, log_z_stderr: float = 0.0) -> Estimate:
    """The paired mean of log p_true - log p_model over test points from p_true: an estimate of KL(p_true ‖ p_model).

    Pairing removes the spread of log p_true itself. The per-point values are `excess_nats_per_point`.

    Arguments:
        log_prob_model: Log-likelihood of each test point under the model, (N,), nats; -inf gives +inf.
        log_prob_truth: Under the true distribution, exact, (N,), nats, finite.
        kind: What `log_prob_model` is of log p_model; a lower bound gives an upper bound on the excess.
        log_z_stderr: Standard error of a log Z that all points share; added in quadrature and named in the note.
    """
    return _mean(excess_nats_per_point(log_prob_model, log_prob_truth), kind, log_z_stderr)


def excess_nats_per_point(log_prob_model: Tensor, log_prob_truth: Tensor) -> Tensor:
    """log p_true - log p_model of each test point, (N,), float64 nats; arguments as for `excess_nats`."""
    _check_log_prob("log_prob_model", log_prob_model)
    check_shape("log_prob_truth", log_prob_truth, tuple(log_prob_model.shape))
    check_finite("log_prob_truth", log_prob_truth)
    return log_prob_truth.to(log_prob_model.device, torch.float64) - log_prob_model.to(torch.float64)


def _check_log_prob(name: str, log_prob: Tensor) -> None:
    check_shape(name, log_prob, ("N",))
    check_log_values(name, log_prob)


def _mean(per_point: Tensor, kind: Kind, log_z_stderr: float) -> Estimate:
    if not 0 <= log_z_stderr < math.inf:
        raise ValueError(f"log_z_stderr must be at least 0 and finite, not {log_z_stderr}")
    n = len(per_point)
    turned = _KIND_OF_NEGATIVE[kind]
    num_infinite = int(torch.isinf(per_point).sum())
    if num_infinite:
        note = f"{num_infinite} of {n} test points have probability 0 under the model: infinite, no standard error"
        return Estimate(value=math.inf, n=n, kind=turned, note=note)
    value = float(per_point.mean())
    if n == 1:
        return Estimate(value=value, n=1, kind=turned, note="one test point: no standard error")
    spread = float(per_point.std()) / math.sqrt(n)
    note = f"stderr includes {log_z_stderr:.3g} of the shared log Z" if log_z_stderr > 0 else ""
    return Estimate(value=value, stderr=math.hypot(spread, log_z_stderr), n=n, kind=turned, note=note)
