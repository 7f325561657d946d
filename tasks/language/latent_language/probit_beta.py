"""One block of the language: the posterior of its latent, Φ(z) ~ Beta(k + 1, T - k + 1), and a Gaussian beside it.

k of T words are ones. p(z | k) = N(z; 0, 1) Φ(z)^k Φ(-z)^(T-k) / B(k + 1, T - k + 1) has no closed moments; they are
one-dimensional integrals, by the trapezoid rule on an equidistant grid: of functions that are smooth and vanish at both
ends its error falls faster than any power of the step, and is at rounding here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_REACH = 12.0  # N(0, 1) has 1e-33 beyond
_STEP = 0.005


class GaussianBlocks(NamedTuple):
    """Of k = 0 … T ones in a block: the Gaussian with the posterior's moments; all (T + 1,), float64."""

    mean: Tensor
    """E[z | k]."""
    std: Tensor
    """The standard deviation of z given k."""
    gap: Tensor
    """KL(N(mean, std²) ‖ p(z | k)) in nats: what an evidence bound with this Gaussian loses on the block."""


def grid() -> Tensor:
    """Latents z at which integrands are evaluated, (G,), float64."""
    num = round(2 * _REACH / _STEP) + 1
    return torch.linspace(-_REACH, _REACH, num, dtype=torch.float64)


def log_posterior(z: Tensor, length: int) -> Tensor:
    """log p(z | k) in nats of latents z (G,) for each k = 0 … `length`, (length + 1, G), float64."""
    k = torch.arange(length + 1, dtype=torch.float64)[:, None]
    log_beta = torch.lgamma(k + 1) + torch.lgamma(length - k + 1) - math.lgamma(length + 2)
    one, other = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
    return _log_normal(z, torch.zeros(()), torch.ones(())) + k * one + (length - k) * other - log_beta


def matched_gaussians(length: int) -> GaussianBlocks:
    """The Gaussians of blocks of `length` words."""
    z = grid()
    log_p = log_posterior(z, length)
    weight = log_p.exp() * _STEP  # (T + 1, G), rows sum to one
    mean = weight @ z
    std = (weight * (z - mean[:, None]).square()).sum(1).sqrt()
    log_q = _log_normal(z, mean[:, None], std[:, None])
    gap = (log_q.exp() * (log_q - log_p)).sum(1) * _STEP
    return GaussianBlocks(mean, std, gap)


def _log_normal(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -((z - mean) / std).square() / 2 - std.log() - math.log(2 * math.pi) / 2
