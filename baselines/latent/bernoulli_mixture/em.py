"""Expectation maximisation of a mixture of products of Bernoullis: pure functions on tensors.

Source: C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 9.3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

ROWS = 8192  # points of one block: with 1000 components their responsibilities take 32 MB
SEED_ROWS = 20  # points a component among which its seed is looked for


class Mixture(NamedTuple):
    """p(x) = sum_k pi_k prod_i mu_ki^x_i (1 - mu_ki)^(1 - x_i)."""

    log_weight: Tensor
    """log pi, (K,)."""
    mean: Tensor
    """mu (K, D), strictly between 0 and 1."""

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k) in nats (B, K) of points x (B, D)."""
        at_zero = self.log_weight + torch.log1p(-self.mean).sum(1)  # log p(0, k)
        return torch.addmm(at_zero, x, torch.logit(self.mean).T)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats (B,) of points x (B, D), block by block."""
        return torch.cat([torch.logsumexp(self.log_joint(rows), 1) for rows in x.split(ROWS)])


class Penalty(NamedTuple):
    """Pseudo-counts, that is the log-density of Dirichlet and Beta priors up to a constant; each at least 0."""

    bits: float
    """a: how often each component has seen every bit as 0, and as 1, before any data; above 0."""
    weights: float
    """b: how many points each component has had before any data."""

    def log_prior(self, mixture: Mixture) -> float:
        """a sum_ki log mu_ki (1 - mu_ki) + b sum_k log pi_k, the part of the objective that is no likelihood."""
        mean = mixture.mean.double()
        of_bits = self.bits * (mean.log() + torch.log1p(-mean)).sum()
        of_weights = self.weights * mixture.log_weight.double().sum() if self.weights else of_bits.new_zeros(())
        return float(of_bits + of_weights)


def em_step(mixture: Mixture, x: Tensor, penalty: Penalty) -> tuple[Mixture, float]:
    """One step of EM on points x (N, D): the new mixture, and the penalised log-likelihood of the old one in nats.

    The E step is one matrix product, the M step another; the objective never falls from a step to the next.
    """
    num_components = len(mixture.log_weight)
    counts, ones, total = torch.zeros_like(mixture.log_weight), torch.zeros_like(mixture.mean), 0.0
    for rows in x.split(ROWS):
        log_joint = mixture.log_joint(rows)  # (B, K)
        log_p = torch.logsumexp(log_joint, 1, keepdim=True)
        responsibility = (log_joint - log_p).exp_()
        counts += responsibility.sum(0)
        ones += responsibility.T @ rows
        total += float(log_p.double().sum())
    weight = (counts + penalty.weights) / (len(x) + num_components * penalty.weights)
    mean = (ones + penalty.bits) / (counts + 2 * penalty.bits)[:, None]
    # float32 sums of responsibilities can leave [0, 1] by a rounding
    eps = torch.finfo(mean.dtype).eps
    return Mixture(weight.log(), mean.clamp(eps, 1 - eps)), total + penalty.log_prior(mixture)


def seeds(x: Tensor, num: int, *, rng: Generator) -> Tensor:
    """`num` rows of x (N, D), each drawn with probability in proportion to the distance from those before it.

    The rule of k-means++ with the squared Euclidean distance, which on bits is Hamming's; where no point is at a
    distance any more, all are equally likely. Only the first 20 * num of the points, in random order, are looked at.

    Source: D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
    """
    order = torch.randperm(len(x), generator=rng, device=rng.device).to(x.device)
    x = x[order[: SEED_ROWS * num]]
    u = torch.rand(num, generator=rng, device=rng.device, dtype=torch.float64).to(x.device)
    ones = x.sum(1)
    distance = torch.ones_like(ones)  # to the nearest seed; before there is one, all points are alike
    chosen = []
    for k in range(num):
        mass = distance.double().cumsum(0) if bool(distance.any()) else torch.ones_like(ones).double().cumsum(0)
        row = min(int(torch.searchsorted(mass, u[k] * mass[-1], right=True)), len(x) - 1)
        chosen.append(x[row])
        to_row = ones + ones[row] - 2 * (x @ x[row])
        distance = to_row if k == 0 else torch.minimum(distance, to_row)
    return torch.stack(chosen)


def start(x: Tensor, num_components: int, *, rng: Generator) -> Mixture:
    """A mixture of equal weights whose means lie between seeds and the mean of x (N, D): those of half a point each."""
    spread = (x.mean(0, dtype=torch.float64).to(x.dtype) * len(x) + 1) / (len(x) + 2)  # strictly inside (0, 1)
    mean = 0.5 * seeds(x, num_components, rng=rng) + 0.5 * spread
    weight = mean.new_full((num_components,), 1 / num_components)
    return Mixture(weight.log(), mean)
