"""Annealed importance sampling of log Z, forward and in reverse, and the reverse estimator of log-likelihoods (RAISE).

Sources: Annealed Importance Sampling, Radford M. Neal, 1998, arXiv physics/9803008; On the Quantitative Analysis of
Deep Belief Networks, Salakhutdinov, Murray, ICML 2008; Sandwiching the marginal likelihood using bidirectional Monte
Carlo, Grosse, Ghahramani, Adams, 2015, arXiv 1511.02543; Accurate and Conservative Estimates of MRF Log-likelihood
using Reverse Annealing, Burda, Grosse, Salakhutdinov, 2014, arXiv 1412.8566.

All three walk the geometric path f_β(x) = f(x)^β base(x)^(1 - β) from a normalised product-Bernoulli base (β = 0) to
the target f (β = 1). The kernel must leave the distribution it is given invariant: without a Metropolis test a Langevin
kernel does not, and the bounds are lost.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gmbench.estimate import Estimate, Kind
from gmbench.metrics.checks import check_binary, check_count, check_finite, check_log_values, check_shape
from gmbench.metrics.log_weights import log_mean_exp
from gmbench.samplers.kernel import Kernel
from gmbench.samplers.target import Target, flip_delta, has_cheap_site_delta, log_prob_and_grad, site_delta

Schedule = Literal["linear", "sigmoid"]

_SIGMOID_RANGE = 4.0  # the sigmoid schedule runs over [-4, 4], as in Grosse et al. 2015


class AISResult(NamedTuple):
    """The outcome of one annealing run."""

    log_z: Estimate
    log_weights: Tensor
    """(num_chains,), float64: log Z is their log-mean-exp (forward), or minus that of their negatives (reverse)."""
    ess: float
    """Kish's effective sample size of the weights, between 1 and num_chains."""
    num_evaluations: int
    """Energy evaluations of one chain, those of the kernel included."""


def data_base(x: Tensor, *, smoothing: float = 0.01) -> Tensor:
    """Bernoulli means of data x (N, D), pulled into [smoothing, 1 - smoothing], as a base distribution (D,)."""
    check_shape("x", x, ("N", "D"))
    check_binary("x", x)
    return x.mean(0) * (1 - 2 * smoothing) + smoothing


def betas(num_steps: int, schedule: Schedule = "linear") -> Tensor:
    """The inverse temperatures 0 = β_0 < … < β_T = 1, (num_steps + 1,), float64; sigmoid is denser at both ends."""
    check_count("num_steps", num_steps)
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    if schedule == "linear":
        return t
    if schedule != "sigmoid":
        raise ValueError(f"schedule must be linear or sigmoid, not {schedule!r}")
    s = torch.sigmoid(_SIGMOID_RANGE * (2 * t - 1))
    return (s - s[0]) / (s[-1] - s[0])


@torch.no_grad()
def ais(
    target: Target,
    base_probs: Tensor,
    kernel: Kernel,
    *,
    num_chains: int,
    num_steps: int,
    rng: torch.Generator,
    schedule: Schedule = "linear",
) -> AISResult:
    """Forward AIS: log Z from base samples. A stochastic lower bound on log Z, so an NLL made with it is optimistic.

    Arguments:
        target: Unnormalised distribution on {0, 1}^D.
        base_probs: P(bit = 1) under the base, (D,), strictly between 0 and 1.
        kernel: One step of it is made at each of the num_steps - 1 temperatures in between.
        num_chains: Independent chains, at least 2.
        num_steps: T, the number of temperature increments.
        rng: Draws the initial states and the transitions.
        schedule: Spacing of the temperatures.
    """
    base = _Base(base_probs)
    check_count("num_chains", num_chains, least=2)
    uniform = torch.rand(num_chains, len(base_probs), generator=rng, device=rng.device).to(base_probs.device)
    x = (uniform < base_probs).to(torch.float32)
    path = betas(num_steps, schedule).tolist()
    log_w = torch.zeros(num_chains, dtype=torch.float64, device=x.device)
    num_evaluations = 0
    for k in range(1, num_steps + 1):
        log_w += (path[k] - path[k - 1]) * _log_ratio(target, base, x)
        num_evaluations += 1
        if k < num_steps:  # a move at β = 1 could not change the weight any more
            x, _, count = kernel.step(x, _annealed(target, base, path[k]), rng=rng)
            num_evaluations += count
    mean = log_mean_exp(log_w)
    note = _note("forward", mean.ess, num_chains, num_steps, schedule)
    return AISResult(_log_z(mean.value, mean.stderr, num_chains, "lower_bound", note), log_w, mean.ess, num_evaluations)


@torch.no_grad()
def reverse_ais(
    target: Target,
    base_probs: Tensor,
    samples: Tensor,
    kernel: Kernel,
    *,
    num_steps: int,
    rng: torch.Generator,
    schedule: Schedule = "linear",
) -> AISResult:
    """AIS from the target back to the base: a stochastic upper bound on log Z, if `samples` are exact.

    Arguments:
        target: Unnormalised distribution on {0, 1}^D.
        base_probs: P(bit = 1) under the base, (D,), strictly between 0 and 1.
        samples: *Exact*, independent samples of the target, one chain from each, (num_chains, D), at least 2. From
            approximate ones nothing is bounded.
        kernel: One step of it is made at each of the num_steps - 1 temperatures in between.
        num_steps: T, the number of temperature increments.
        rng: Draws the transitions.
        schedule: Spacing of the temperatures.
    """
    base = _Base(base_probs)
    _check_states("samples", samples, base)
    num_chains = len(samples)
    check_count("the number of samples", num_chains, least=2)
    path = betas(num_steps, schedule).tolist()
    x = samples
    log_w = torch.zeros(num_chains, dtype=torch.float64, device=x.device)
    num_evaluations = 0
    for k in range(num_steps, 0, -1):
        log_w += (path[k] - path[k - 1]) * _log_ratio(target, base, x)
        num_evaluations += 1
        if k > 1:
            x, _, count = kernel.step(x, _annealed(target, base, path[k - 1]), rng=rng)
            num_evaluations += count
    mean = log_mean_exp(-log_w)
    note = _note("reverse", mean.ess, num_chains, num_steps, schedule)
    log_z = _log_z(-mean.value, mean.stderr, num_chains, "upper_bound", note)
    return AISResult(log_z, log_w, mean.ess, num_evaluations)


@torch.no_grad()
def raise_(
    target: Target,
    base_probs: Tensor,
    x: Tensor,
    kernel: Kernel,
    *,
    num_chains: int,
    num_steps: int,
    rng: torch.Generator,
    schedule: Schedule = "linear",
) -> Tensor:
    """RAISE: log-likelihood of each test point (N,), float64 nats, by chains that anneal from the point to the base.

    exp of it, averaged over chains, is an unbiased estimate of p_ann(x), the *normalised* distribution of the end point
    of forward annealing with these steps; its log is a lower bound on log p_ann(x). p_ann tends to p as the steps grow,
    and on points of p itself E log p_ann is at most E log p; on other data the estimate is conservative as a rule, not
    by theorem. Use with `nll(..., kind="lower_bound")`. num_chains · N chains are held at once.

    Arguments:
        target: Unnormalised distribution on {0, 1}^D.
        base_probs: P(bit = 1) under the base, (D,), strictly between 0 and 1.
        x: Test points, (N, D), where the target has mass.
        kernel: One step of it is made at each of the num_steps temperatures above 0.
        num_chains: Chains per test point; more tighten the bound.
        num_steps: T, the number of temperature increments.
        rng: Draws the transitions.
        schedule: Spacing of the temperatures.
    """
    base = _Base(base_probs)
    _check_states("x", x, base)
    check_count("num_chains", num_chains)
    log_f = target.log_prob(x)
    check_finite("the log density of the test points", log_f)
    path = betas(num_steps, schedule).tolist()
    state = x.repeat_interleave(num_chains, 0)  # (N · num_chains, D)
    log_w = log_f.to(torch.float64).repeat_interleave(num_chains)
    for k in range(num_steps, 0, -1):
        state = kernel.step(state, _annealed(target, base, path[k]), rng=rng).x
        log_w -= (path[k] - path[k - 1]) * _log_ratio(target, base, state)
    return torch.logsumexp(log_w.view(len(x), num_chains), 1) - math.log(num_chains)


class _Base:
    """The product-Bernoulli base: log base(x) = Σ log(1 - p_i) + x·logit(p)."""

    def __init__(self, probs: Tensor) -> None:
        check_shape("base_probs", probs, ("D",))
        if not bool(((probs > 0) & (probs < 1)).all()):
            raise ValueError("base_probs must lie strictly between 0 and 1: see data_base")
        self.logits = torch.logit(probs.to(torch.float64)).to(torch.float32)  # (D,)
        self.log_zeros = float(torch.log1p(-probs.to(torch.float64)).sum())

    def log_prob(self, x: Tensor) -> Tensor:
        return x @ self.logits + self.log_zeros


class _Annealed:
    """log f_β = β log f + (1 - β) log base, with the shortcuts that cost no more than the target's own."""

    def __init__(self, target: Target, base: _Base, beta: float) -> None:
        self.target, self.base, self.beta = target, base, beta

    def log_prob(self, x: Tensor) -> Tensor:
        return self.beta * self.target.log_prob(x) + (1 - self.beta) * self.base.log_prob(x)

    def log_prob_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, grad = log_prob_and_grad(self.target, x)
        cold = 1 - self.beta
        return self.beta * value + cold * self.base.log_prob(x), self.beta * grad + cold * self.base.logits

    def flip_delta(self, x: Tensor) -> Tensor:
        return self.beta * flip_delta(self.target, x) + (1 - self.beta) * (1 - 2 * x) * self.base.logits


class _AnnealedSites(_Annealed):
    """For a target with cheap single-site differences; kernels look for the method, so it is a class of its own."""

    def site_delta(self, x: Tensor, i: int | Tensor) -> Tensor:
        sites = torch.as_tensor(i, device=x.device).expand(len(x))
        x_i = x.gather(1, sites[:, None])[:, 0]
        own = (1 - 2 * x_i) * self.base.logits[sites]
        return self.beta * site_delta(self.target, x, i) + (1 - self.beta) * own


def _annealed(target: Target, base: _Base, beta: float) -> _Annealed:
    return (_AnnealedSites if has_cheap_site_delta(target) else _Annealed)(target, base, beta)


def _log_ratio(target: Target, base: _Base, x: Tensor) -> Tensor:
    log_f = target.log_prob(x)
    check_log_values("the target's log density", log_f)
    return log_f.to(torch.float64) - base.log_prob(x)


def _check_states(name: str, x: Tensor, base: _Base) -> None:
    check_shape(name, x, ("N", len(base.logits)))
    check_binary(name, x)


def _log_z(value: float, stderr: float, n: int, kind: Kind, note: str) -> Estimate:
    if math.isinf(value):
        return Estimate(value=value, n=n, kind=kind, note=f"{note}; all weights are 0: no standard error")
    return Estimate(value=value, stderr=stderr, n=n, kind=kind, note=note)


def _note(direction: str, ess: float, num_chains: int, num_steps: int, schedule: Schedule) -> str:
    return f"{direction} AIS, {num_steps} {schedule} steps, ESS {ess:.3g} of {num_chains} chains"
