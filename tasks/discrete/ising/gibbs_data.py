"""The data generator of the literature: many short Gibbs chains, kept for comparison with exact samples."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def gibbs_samples(J: Tensor, num: int, *, num_sweeps: int, rng: torch.Generator) -> Tensor:
    """The last states of independent Gibbs chains that start at fair coin flips.

    One sweep visits the sites 0, 1, ..., D - 1 in this order, one at a time in every chain, and draws
    x_i ~ Bernoulli(sigmoid(4 sum_j J_ij s_j)). This is the generator behind W. Grathwohl, K. Swersky, M. Hashemi,
    D. Duvenaud, C. Maddison, Oops I Took A Gradient: Scalable Sampling for Discrete Distributions, 2021
    (arXiv 2102.04509), where 10^6 single-site steps make 10^4 sweeps of 10 x 10 spins. Its bias vanishes only with
    `num_sweeps`, and near the critical point slowly: the task itself uses exact samples.

    Arguments:
        J: Symmetric couplings (D, D), zero diagonal.
        num: Number of chains.
        num_sweeps: Sweeps a chain; 0 returns the start.
        rng: Source of randomness; its device is the device of the result.

    Returns:
        x (num, D) float32 in {0,1}.

    Raises:
        ValueError: J is not symmetric with a zero diagonal.
    """
    if not torch.equal(J, J.mT) or bool(J.diagonal().any()):
        raise ValueError("Gibbs sampling needs symmetric couplings with a zero diagonal")
    num_sites = J.shape[0]
    J = J.to(rng.device, torch.float64)
    neighbours = [row.nonzero().squeeze(1) for row in J]
    weights = [4 * row[index] for row, index in zip(J, neighbours, strict=True)]
    uniform = torch.rand(num_sites, num, dtype=torch.float64, device=rng.device, generator=rng)
    s = (uniform < 0.5).to(torch.float64) * 2 - 1  # (D, num): a site is one contiguous row
    for _ in range(num_sweeps):
        # u < sigmoid(f) if and only if logit(u) < f: one transcendental function for the whole sweep
        threshold = torch.logit(torch.rand(num_sites, num, dtype=torch.float64, device=rng.device, generator=rng))
        for i in range(num_sites):
            field = weights[i] @ s[neighbours[i]]
            s[i] = (threshold[i] < field).to(torch.float64).mul_(2).sub_(1)
    return (s.mT > 0).to(torch.float32).contiguous()
