"""What the latents of a model know about its points: their divergence, mutual information and active units.

With q(z | x) a diagonal Gaussian and q(z) = E_x q(z | x), E_x KL(q(z | x) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)).

Sources: ELBO surgery, Hoffman, Johnson, 2016; On Variational Bounds of Mutual Information, Poole, Ozair, van den Oord,
Alemi, Tucker, 2019, arXiv 1905.06922; Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2015,
arXiv 1509.00519.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_count, check_finite, check_shape
from gmbench.metrics.diagonal_gaussian import DiagonalGaussian, diagonal_gaussian

_BLOCK_ELEMENTS = 2**22  # log densities held at once: 32 MB


class MutualInformation(NamedTuple):
    """Two bounds on I_q(x; z), in nats, and whether the lower one can still tell."""

    lower: Estimate
    """Each latent against all N posteriors, its own included."""
    upper: Estimate
    """Each latent against the N - 1 other posteriors."""
    log_n: float
    """log N, which the lower bound cannot exceed."""
    saturated: bool
    """The lower bound is within 1 nat of log N: the information may be far larger, or infinite."""


@torch.no_grad()
def kl(posterior: Distribution, prior: Distribution) -> Estimate:
    """The mean of KL(q(z | x) ‖ p(z)) over points, each term analytic, in nats per point.

    Arguments:
        posterior: q(z | x) of N points, N at least 2: `Independent(Normal(mean, std), 1)`.
        prior: p(z), of the same family.

    Raises:
        MissingCapability: One of them is of another family.
    """
    terms = _posteriors(posterior).kl_from(diagonal_gaussian("the prior", prior))
    return Estimate(value=float(terms.mean()), stderr=_stderr(terms), n=len(terms), kind="unbiased")


@torch.no_grad()
def mutual_information(posterior: Distribution, *, rng: Generator) -> MutualInformation:
    """I_q(x; z) = E_x E_q(z|x) [log q(z | x) - log q(z)] between bounds, from one latent z_i ~ q(z | x_i) a point.

    q(z_i) is replaced by the mean of q(z_i | x_j) over the points. With j = i among them the expectation is at most I
    (and log N); without, at least I, by Jensen's inequality. As N grows beyond χ² = E_z Var_x(q(z | x)) / q(z)², which
    is at least exp(I) - 1, their distance falls to about χ² / N.

    Standard errors are infinitesimal jackknives: a point counts as a latent that is explained and as a posterior that
    explains others. They are of the bounds, not of their distance from I. Where the lower bound is saturated, the upper
    one's falls short of its true spread (by a tenth at I = 8 and by a quarter at I = 23, of 200 points).

    Arguments:
        posterior: q(z | x) of N points, N at least 2: `Independent(Normal(mean, std), 1)`.
        rng: Draws the latents.

    Raises:
        MissingCapability: The posterior is of another family.
    """
    q = DiagonalGaussian(*(part.double() for part in _posteriors(posterior)))
    num, log_n = len(q.mean), math.log(len(q.mean))
    z, own = (part[0] for part in q.draw(1, rng))  # (N, Z), (N,): log q(z_i | x_i)
    centre = q.mean.mean(0)  # small products keep the differences of squares accurate
    mean, z = q.mean - centre, z - centre
    precision = q.std.pow(-2)
    # log q(z_i | x_j) = [z_i², z_i] · factors_j + offset_j
    factors = torch.cat([-precision / 2, mean * precision], 1).T  # (2Z, N)
    offset = -(mean.square() * precision / 2 + q.std.log() + math.log(2 * math.pi) / 2).sum(1)  # (N,)
    among_all, among_others = own.new_empty(num), own.new_empty(num)
    share_of_all, share_of_others = own.new_zeros(num), own.new_zeros(num)  # of explaining the latents, 1 on average
    size = max(1, _BLOCK_ELEMENTS // num)
    for begin in range(0, num, size):
        rows = slice(begin, begin + size)
        log_q = torch.addmm(offset, torch.cat([z[rows].square(), z[rows]], 1), factors)  # (B, N)
        log_q.diagonal(begin).fill_(-math.inf)
        among_others[rows] = torch.logsumexp(log_q, 1)
        among_all[rows] = torch.logaddexp(among_others[rows], own[rows])
        of_others = log_q.sub_(among_others[rows, None]).exp_()
        share_of_others += of_others.sum(0)
        share_of_all += (among_others[rows] - among_all[rows]).exp() @ of_others
    share_of_all += (own - among_all).exp()
    lower = own - among_all + log_n
    upper = own - among_others + math.log(num - 1)
    saturated = float(lower.mean()) > log_n - 1
    note = f"leave-in: at most log N = {log_n:.3f}" + ("; saturated, within 1 nat of that" if saturated else "")
    return MutualInformation(
        Estimate(
            value=float(lower.mean()), stderr=_stderr(lower - share_of_all), n=num, kind="lower_bound", note=note
        ),
        Estimate(
            value=float(upper.mean()), stderr=_stderr(upper - share_of_others), n=num, kind="upper_bound",
            note="leave-one-out",
        ),
        log_n,
        saturated,
    )  # fmt: skip


def active_units(means: Tensor, *, threshold: float = 0.01) -> Estimate:
    """The number of latents j with Var_x(E_q[z_j | x]) above a threshold: those that move with the point.

    Arguments:
        means: Posterior means of N points, (N, Z), N at least 2.
        threshold: In the latents' unit squared; 0.01 for latents whose prior is N(0, 1).
    """
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be at least 0 and finite, not {threshold}")
    variances = variance_of_means(means)
    spread = (means.double() - means.double().mean(0)).square()
    stderr = (spread.var(0) / len(means)).sqrt()  # of each variance
    num_close = int(((variances - threshold).abs() < 2 * stderr).sum())
    return Estimate(
        value=float((variances > threshold).sum()),
        n=len(means),
        kind="consistent",
        note=f"of {len(variances)}; a count has no standard error: {num_close} of the variances are within two of "
        "theirs of the threshold",
    )


def variance_of_means(means: Tensor) -> Tensor:
    """Var_x(E_q[z_j | x]) of every latent, (Z,), float64, unbiased, from posterior means (N, Z), N at least 2."""
    check_shape("means", means, ("N", "Z"))
    check_finite("means", means)
    check_count("the number of points", len(means), least=2)
    return means.double().var(0)


def _posteriors(posterior: Distribution) -> DiagonalGaussian:
    q = diagonal_gaussian("the posterior", posterior)
    check_shape("the posterior's mean", q.mean, ("N", "Z"))
    check_count("the number of points", len(q.mean), least=2)
    return q


def _stderr(terms: Tensor) -> float:
    return float(terms.std()) / math.sqrt(len(terms))
