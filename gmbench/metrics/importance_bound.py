"""Lower bounds on the log-likelihood of a latent-variable model: importance-weighted, and the evidence bound's parts.

Sources: Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2015, arXiv 1509.00519; Auto-Encoding
Variational Bayes, Kingma, Welling, 2013, arXiv 1312.6114.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from gmbench.metrics.checks import check_count, check_log_values, check_shape
from gmbench.metrics.diagonal_gaussian import DiagonalGaussian, diagonal_gaussian

# Latents decoded at once: 784 log odds of each take 6 MB then, and a decoder's whole pass some tens of MB.
MAX_ROWS = 2048

PosteriorOf = Callable[[Tensor], Distribution]
"""q(z | x) of points x (B, ...): batch shape (B,), event shape (Z,)."""
LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""log p(x | z) in nats, (K, B), of points x (B, ...) and latents z (K, B, Z)."""


class EvidenceBound(NamedTuple):
    """The evidence lower bound of each point and the two parts whose difference it is; all (N,), float64, nats."""

    elbo: Tensor
    """Expected to be log p(x) - KL(q(z | x) ‖ p(z | x))."""
    reconstruction: Tensor
    """E_q log p(x | z), averaged over draws."""
    kl: Tensor
    """KL(q(z | x) ‖ p(z)), analytic."""


@torch.no_grad()
def importance_bound(
    prior: Distribution,
    posterior_of: PosteriorOf,
    log_likelihood: LogLikelihood,
    x: Tensor,
    *,
    num_importance: int,
    rng: Generator,
    max_rows: int = MAX_ROWS,
) -> Tensor:
    """L_K = log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x), z_k ~ q(z | x), of each point (N,), float64 nats.

    Its expectation is at most log p(x), whatever q is, never falls as K grows, and is the evidence lower bound at
    K = 1. It tends to log p(x) where q leaves out nothing of p(z | x); weights of finite variance give
    log p(x) - E L_K ≈ Var(w) / (2K E(w)²). The sum over k goes on from block to block, so that K costs no memory.

    Arguments:
        prior: p(z), event shape (Z,); any family whose log_prob torch evaluates.
        posterior_of: q(z | x) of a block of points: `Independent(Normal(mean, std), 1)`.
        log_likelihood: log p(x | z), exact; -inf where p(x | z) is 0.
        x: Points (N, ...), on the device of the model.
        num_importance: K, draws a point.
        rng: Draws the latents.
        max_rows: Latents decoded at once, at most. Another number gives other draws.

    Raises:
        MissingCapability: The posterior is of another family.
        ValueError: The model returns NaN, +inf or a wrong shape.
    """
    check_count("num_importance", num_importance)

    def log_mean_weight(points: Tensor, posterior: DiagonalGaussian) -> Tensor:
        total = torch.full((len(points),), -math.inf, dtype=torch.float64, device=points.device)
        for z, log_q in _draws(posterior, num_importance, rng, max_rows):
            log_w = _evaluated(log_likelihood, points, z) + (prior.log_prob(z) - log_q)  # (k, B)
            check_log_values("log p(x, z) - log q(z | x)", log_w)
            total = torch.logaddexp(total, torch.logsumexp(log_w, 0))
        return total - math.log(num_importance)

    return torch.cat([log_mean_weight(*block) for block in _blocks(x, posterior_of, num_importance, max_rows)])


@torch.no_grad()
def evidence_bound(
    prior: Distribution,
    posterior_of: PosteriorOf,
    log_likelihood: LogLikelihood,
    x: Tensor,
    *,
    num_draws: int,
    rng: Generator,
    max_rows: int = MAX_ROWS,
) -> EvidenceBound:
    """E_q log p(x | z) - KL(q(z | x) ‖ p(z)) of each point, by a mean over draws and an analytic divergence.

    Unlike the importance-weighted bound it does not tighten with more draws: they only lessen its noise.

    Arguments:
        prior: p(z): `Independent(Normal(mean, std), 1)`.
        num_draws: Latents a point.
        posterior_of, log_likelihood, x, rng, max_rows: As for `importance_bound`, whose errors these are too.
    """
    check_count("num_draws", num_draws)
    of_prior = diagonal_gaussian("the prior", prior)
    reconstruction, kl = [], []
    for points, posterior in _blocks(x, posterior_of, num_draws, max_rows):
        total = torch.zeros(len(points), dtype=torch.float64, device=points.device)
        for z, _ in _draws(posterior, num_draws, rng, max_rows):
            log_p = _evaluated(log_likelihood, points, z)
            check_log_values("log p(x | z)", log_p)
            total += log_p.sum(0)
        reconstruction.append(total / num_draws)
        kl.append(posterior.kl_from(of_prior))
    found, cost = torch.cat(reconstruction), torch.cat(kl)
    return EvidenceBound(found - cost, found, cost)


def _blocks(
    x: Tensor, posterior_of: PosteriorOf, num_draws: int, max_rows: int
) -> Iterator[tuple[Tensor, DiagonalGaussian]]:
    """Points (B, ...) with their posteriors; B · num_draws is at most max_rows, unless B = 1."""
    check_count("the number of points", len(x))
    check_count("max_rows", max_rows)
    for points in torch.split(x, max(1, max_rows // num_draws)):
        posterior = diagonal_gaussian("the posterior", posterior_of(points))
        check_shape("the posterior's mean", posterior.mean, (len(points), "Z"))
        yield points, posterior


def _draws(posterior: DiagonalGaussian, num: int, rng: Generator, max_rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`num` latents (k, B, Z) of each point, and log q of them (k, B); of a block of several points, all at once."""
    for begin in range(0, num, max_rows):
        yield posterior.draw(min(max_rows, num - begin), rng)


def _evaluated(log_likelihood: LogLikelihood, points: Tensor, z: Tensor) -> Tensor:
    log_p = log_likelihood(points, z)
    check_shape("log p(x | z)", log_p, tuple(z.shape[:2]))
    return log_p.double()
