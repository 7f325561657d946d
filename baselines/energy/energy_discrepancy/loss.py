"""The contrastive loss of energy discrepancy with Bernoulli perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor


def energy_discrepancy(
    log_f: Callable[[Tensor], Tensor], x: Tensor, *, flip_prob: float, num_negatives: int, w: float, rng: Generator
) -> Tensor:
    """mean over x of log(w / M + (1 / M) sum_j exp(log f(x_j) - log f(x))), a scalar in nats.

    x is perturbed to y by flipping each bit with probability eps, and y is perturbed in the same way, independently M
    times, to the negatives x_j: draws of what x may have been. For w = 1 this is -log of the probability with which
    f tells x among x, x_1 .. x_M, plus a constant: since x given y has density ~ p(x) q(y | x) and x_j has
    ~ q(y | x_j), the best f for any M is the data's density (conditional noise contrast). For any w and M towards
    infinity it is the paper's functional.

    Arguments:
        log_f: The unnormalised log density, (N, D) -> (N,).
        x: Data (B, D) with values in {0, 1}.
        flip_prob: eps in (0, 1/2]: small, close to pseudo-likelihood; 1/2, a contrast with uniform noise.
        num_negatives: M.
        w: The stabilisation, at least 0.
        rng: The source of the flips.

    Sources: T. Schröder, Z. Ou, J. N. Lim, Y. Li, S. J. Vollmer, A. B. Duncan, "Energy Discrepancies: A
    Score-Independent Loss for Energy-Based Models", 2023, arXiv 2307.06431; T. Schröder, Z. Ou, Y. Li, A. B. Duncan,
    "Training Discrete Energy-Based Models with Energy Discrepancy", 2023, arXiv 2307.07595.
    """
    negatives = perturb_twice(x, flip_prob, num_negatives, rng=rng)  # (B, M, D)
    there = log_f(negatives.flatten(0, 1)).reshape(len(x), num_negatives)
    gap = there - log_f(x)[:, None]  # (B, M)
    if w > 0:
        gap = torch.cat([gap, gap.new_full((len(x), 1), math.log(w))], dim=1)
    return torch.logsumexp(gap, dim=1).mean() - math.log(num_negatives)


def perturb_twice(x: Tensor, flip_prob: float, num_negatives: int, *, rng: Generator) -> Tensor:
    """(B, M, D): x (B, D) with noise that a row's M copies share, and noise of their own on top."""
    num, dim = x.shape
    shared = torch.rand(num, 1, dim, generator=rng, device=rng.device) < flip_prob
    own = torch.rand(num, num_negatives, dim, generator=rng, device=rng.device) < flip_prob
    return torch.where((shared ^ own).to(x.device), 1 - x[:, None], x[:, None])
