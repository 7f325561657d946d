"""Trajectory balance.

Malkin, Jain, Bengio, Sun, Bengio: Trajectory balance: improved credit assignment in GFlowNets, NeurIPS 2022,
arXiv 2201.13259; mixed with trajectories from data as in Zhang et al., ICML 2022, arXiv 2202.01361.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .policy import Policy, bits, signed
from .trajectories import walk


class TBResult(NamedTuple):
    """The loss and what it was made from."""

    loss: Tensor  # scalar, differentiable by the policy's parameters
    x: Tensor  # (num_forward, D) in {0., 1.}, where the forward trajectories ended: draws from the GFlowNet
    residual: Tensor  # (num_forward + B,), delta of every trajectory, the forward ones first; detached


def trajectory_balance(
    policy: Policy,
    log_f: Callable[[Tensor], Tensor],
    x_data: Tensor | None,
    *,
    num_forward: int,
    rng: torch.Generator,
    back_ratio: float = 0.5,
    epsilon: float = 0.0,
    temperature: float = 1.0,
) -> TBResult:
    """L = (1 - r) mean_forward delta^2 + r mean_backward delta^2, where for a trajectory tau that ends in x

        delta = log Z + sum_t log P_F(s_{t+1} | s_t) - sum_t log P_B(s_t | s_{t+1}) - log f(x).

    Forward trajectories are drawn from P_F; backward ones from P_B, starting at the data. They are drawn without a
    graph, and `loss.backward()` runs the gradient in closed form (see `mlp.StepwisePass`).

    Arguments:
        policy: P_F, P_B and log Z.
        log_f: The unnormalised log density, (N, D) in {0., 1.} -> (N,); evaluated without gradient.
        x_data: (B, D) in {0., 1.}, or None if there are no backward trajectories.
        num_forward: How many forward trajectories; may be 0 if there is data.
        rng: Source of the trajectories.
        back_ratio: r. Ignored where only one of the two kinds is drawn.
        epsilon: Probability of a uniformly random choice on forward trajectories.
        temperature: Divides the logits on forward trajectories. Both explore: delta is of the policy itself.

    Returns:
        The loss with its parts.
    """
    x_data = policy.log_z.new_zeros(0, policy.num_bits) if x_data is None else x_data.to(policy.log_z.dtype)
    if num_forward + len(x_data) == 0:
        raise ValueError("trajectory balance needs forward trajectories or data")
    empty = policy.log_z.new_zeros(num_forward, policy.num_bits)
    tau = walk(
        policy,
        torch.cat([empty, signed(x_data)]),
        num_up=num_forward,
        num_steps=policy.num_bits,
        rng=rng,
        epsilon=epsilon,
        temperature=temperature,
        differentiable=True,
    )
    x_forward = bits(tau.s[:num_forward])
    with torch.no_grad():
        log_fx = log_f(torch.cat([x_forward, x_data]))
    delta = policy.log_z + tau.log_ratio - log_fx  # (N,)
    loss = (_weights(num_forward, len(x_data), back_ratio, delta) * delta.square()).sum()
    return TBResult(loss, x_forward, delta.detach())


def _weights(num_forward: int, num_backward: int, r: float, like: Tensor) -> Tensor:
    """Of each trajectory in the loss: (1 - r) / num_forward or r / num_backward."""
    if num_backward == 0:
        r = 0.0
    elif num_forward == 0:
        r = 1.0
    forward = like.new_full((num_forward,), (1 - r) / max(num_forward, 1))
    return torch.cat([forward, like.new_full((num_backward,), r / max(num_backward, 1))])
