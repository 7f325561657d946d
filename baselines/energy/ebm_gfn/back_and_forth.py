"""Back-and-forth proposals: negatives for an energy model, drawn by a GFlowNet around given points.

Zhang et al., Generative Flow Networks for Discrete Probabilistic Modeling, ICML 2022, arXiv 2202.01361, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.samplers.metropolis import Rule, accept

from .policy import Policy, bits, signed
from .trajectories import walk


class Proposal(NamedTuple):
    """Proposed points and what a Metropolis-Hastings test needs to know of the two paths."""

    x: Tensor  # (B, D), x'
    log_ratio: Tensor  # (B,) float64, log of [P_B(tau' | x') P_F(tau)] / [P_B(tau | x) P_F(tau')]


class Negatives(NamedTuple):
    """The points after one accept-reject step."""

    x: Tensor  # (B, D)
    accept_rate: Tensor  # scalar


def num_deleted(step: int, *, num_bits: int, warmup: int) -> int:
    """K = max(1, floor(D (step + 1) / warmup)), at most D; step counts from 0."""
    return min(num_bits, max(1, num_bits * (step + 1) // warmup))


@torch.no_grad()
def propose(policy: Policy, x: Tensor, *, num_steps: int, rng: torch.Generator) -> Proposal:
    """Clears K locations of x with P_B, along tau down to s, and sets K again with P_F, along tau' up to x'.

    The reverse proposal goes down tau' from x' to the same s and up tau to x. Given s and both paths its probability
    is known, so detailed balance holds on (x, tau, tau'), and with it for x.

    Arguments:
        x: (B, D) in {0., 1.}.
        num_steps: K, from 1 to D.
        rng: Source of the paths.

    Returns:
        The proposal; `log_ratio` is of reverse to forward.
    """
    down = walk(policy, signed(x.to(policy.log_z.dtype)), num_up=0, num_steps=num_steps, rng=rng)  # tau
    up = walk(policy, down.s, num_up=len(x), num_steps=num_steps, rng=rng)  # tau'
    return Proposal(bits(up.s), down.log_ratio - up.log_ratio)


@torch.no_grad()
def back_and_forth(
    policy: Policy,
    log_f: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    num_steps: int,
    rng: torch.Generator,
    rule: Rule | None = "metropolis",
) -> Negatives:
    """One back-and-forth move of every point, accepted or rejected so that f is left invariant.

    Arguments:
        policy: The GFlowNet, at any stage of training.
        log_f: Unnormalised log density, (B, D) -> (B,).
        x: (B, D) in {0., 1.}.
        num_steps: K, from 1 to D.
        rng: Source of all randomness.
        rule: `metropolis`, min(1, e^r); `barker`, sigmoid(r), the rule of the published code; None accepts everything
            (no longer invariant).

    Returns:
        The next points and the share of accepted moves.
    """
    proposal = propose(policy, x, num_steps=num_steps, rng=rng)
    if rule is None:
        return Negatives(proposal.x.to(x.dtype), torch.ones((), device=x.device))
    log_ratio = (log_f(proposal.x) - log_f(x)).double() + proposal.log_ratio
    accepted = accept(log_ratio, rule=rule, rng=rng)
    return Negatives(torch.where(accepted[:, None], proposal.x.to(x.dtype), x), accepted.float().mean())
