"""Gibbs with gradients: propose the flip that looks best, accept or reject it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gmbench.samplers.informed import InformedKernel
from gmbench.samplers.metropolis import Rule
from gmbench.samplers.noise import uniforms


@dataclass(frozen=True)
class GibbsWithGradients(InformedKernel):
    """Flips one bit i drawn from softmax_i(d_i(x) / 2), with d_i(x) the change of log f, and accepts by `rule`.

    Arguments:
        exact: Take the exact change of every flip (Zanella's locally balanced proposal with g(t) = sqrt(t)), at D
            evaluations a look, instead of the first-order estimate d = -(2x - 1) * grad log f(x), at 2.
        rule: How proposals are accepted.

    Sources: W. Grathwohl, K. Swersky, M. Hashemi, D. Duvenaud, C. J. Maddison, "Oops I took a gradient: scalable
    sampling for discrete distributions", 2021, arXiv 2102.04509; G. Zanella, "Informed proposals for local MCMC in
    discrete spaces", 2020, arXiv 1711.07424.
    """

    exact: bool = False
    rule: Rule = "metropolis"
    mh = True

    def propose(self, x: Tensor, delta: Tensor, *, rng: Generator) -> Tensor:
        """x with one bit flipped, (B, D)."""
        # argmax of (log-probability + Gumbel noise) is a draw from the softmax, for all rows in two passes
        gumbel = -torch.log(-torch.log(uniforms((x.shape[0], x.shape[1]), x, rng)))
        i = (delta / 2 + gumbel).argmax(dim=1, keepdim=True)
        return x.scatter(1, i, 1 - x.gather(1, i))

    def log_proposal(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """log softmax_i(d / 2) for the bit i in which x and y differ, (B,)."""
        differs = x != y
        log_q = torch.log_softmax(delta / 2, dim=1)
        return torch.where(differs.sum(1) == 1, (log_q * differs).sum(1), -torch.inf)
