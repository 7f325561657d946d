"""Effective sample size of Markov chains.

Sources: Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC, Vehtari,
Gelman, Simpson, Carpenter, Bürkner, 2021, arXiv 1903.08008 (split, several chains; without their rank transform);
Practical Markov Chain Monte Carlo, Charles J. Geyer, Statistical Science 7, 1992 (initial monotone sequence).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_finite, check_shape


def ess(series: Tensor) -> Estimate:
    """How many independent draws estimate the mean of the series as well as all chains together.

    The standard error is the jackknife's over chains, None for fewer than 3. Chains that never move, be it at one value
    or at several, say nothing of how they mix: the result is then 0, of kind `lower_bound`, with a note. Chains of
    fewer than some hundred autocorrelation times are credited a few per cent too much.

    Arguments:
        series: A scalar function of the state, (num_chains, num_steps), at least 8 steps.
    """
    return _scaled(series, 1.0)


def ess_per_evaluation(series: Tensor, num_evaluations: int) -> Estimate:
    """`ess` divided by the energy evaluations that all chains spent.

    Arguments:
        series: A scalar function of the state, (num_chains, num_steps), at least 8 steps.
        num_evaluations: Energy evaluations of *one* chain over all its steps (the sum of its
            `Transition.num_evaluations`).
    """
    if num_evaluations < 1:
        raise ValueError(f"num_evaluations must be at least 1, not {num_evaluations}")
    check_shape("series", series, ("num_chains", "num_steps"))
    return _scaled(series, 1.0 / (num_evaluations * len(series)))


def _scaled(series: Tensor, scale: float) -> Estimate:
    check_shape("series", series, ("num_chains", "num_steps"))
    if series.shape[1] < 8:
        raise ValueError(f"series needs at least 8 steps a chain, not {series.shape[1]}")
    check_finite("series", series)
    values = series.to(torch.float64)
    num_chains, num_steps = values.shape
    if bool((values == values[:, :1]).all()):
        note = "every chain is constant, which says nothing of mixing: no standard error"
        return Estimate(value=0.0, n=num_chains, kind="lower_bound", note=note)
    half = num_steps // 2  # an odd middle step is dropped
    halves = torch.stack([values[:, :half], values[:, -half:]], 1)  # (chains, 2, half)
    means = halves.mean(2)  # (chains, 2)
    covariances = _autocovariance(halves - means[..., None])  # (chains, 2, half)
    value = _efficiency(means, covariances) * num_chains * num_steps * scale
    if num_chains < 3:
        note = f"{num_chains} chain{'s' * (num_chains > 1)}: too few for a jackknife standard error"
        return Estimate(value=value, n=num_chains, kind="consistent", note=note)
    left_out = torch.tensor(
        [
            _efficiency(means[keep], covariances[keep])
            for keep in (torch.arange(num_chains, device=values.device) != i for i in range(num_chains))
        ],
        dtype=torch.float64,
    )
    variance = (num_chains - 1) * float(left_out.var(correction=0))
    stderr = math.sqrt(variance) * num_chains * num_steps * scale
    return Estimate(value=value, stderr=stderr, n=num_chains, kind="consistent")


def _autocovariance(centered: Tensor) -> Tensor:
    """Biased autocovariances (divided by the length at every lag) along the last axis, zero-padded so none wraps."""
    length = centered.shape[-1]
    spectrum = torch.fft.rfft(centered, n=2 * length)
    covariances: Tensor = torch.fft.irfft(spectrum.abs().square(), n=2 * length)
    return covariances[..., :length] / length


def _efficiency(means: Tensor, covariances: Tensor) -> float:
    """ESS per draw from the half-chains' means (C, 2) and autocovariances (C, 2, T)."""
    means, covariances = means.reshape(-1), covariances.reshape(-1, covariances.shape[-1])
    num_halves, length = covariances.shape
    average = covariances.mean(0)  # (T,)
    within = float(average[0]) * length / (length - 1)
    pooled = float(average[0]) + float(means.var())
    if pooled == 0:
        return 0.0
    rho = 1 - (within - average * length / (length - 1)) / pooled  # (T,)
    rho[0] = 1.0
    even = length - length % 2
    pairs = rho[:even].view(-1, 2).sum(1)  # Geyer: positive and decreasing for a reversible chain
    negative = (pairs <= 0).nonzero()
    if len(negative):
        pairs = pairs[: int(negative[0])]
    monotone = pairs.cummin(0).values
    num_draws = num_halves * length
    # Antithetic chains beat independence; the cap keeps a short one from claiming an infinite gain.
    tau = max(-1 + 2 * float(monotone.sum()), 1 / math.log10(num_draws))
    return 1 / tau
