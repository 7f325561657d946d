"""The exact distribution of a GFlowNet's end points, by dynamic programming over all 3^D partial states."""

from __future__ import annotations

import torch
from torch import Tensor

from .policy import Policy

MAX_BITS = 12  # 531 441 states, some seconds


def all_vectors(num_bits: int) -> Tensor:
    """All 2^D vectors, (2^D, D) in {0., 1.}: bit d of row i is (i >> d) & 1."""
    return ((torch.arange(2**num_bits)[:, None] >> torch.arange(num_bits)) & 1).float()


def all_states(num_bits: int) -> Tensor:
    """All 3^D partial states, (3^D, D) in {-1., 0., 1.}: digit d of row i in base 3 is 0 unset, 1 bit 0, 2 bit 1."""
    digits = torch.arange(3**num_bits)[:, None] // 3 ** torch.arange(num_bits) % 3
    return torch.tensor([0.0, -1.0, 1.0])[digits]


@torch.no_grad()
def terminal_log_prob(policy: Policy, *, chunk_size: int = 8192) -> Tensor:
    """log p(x) of every x: the mass 1 of the empty state is pushed up the graph, one level t = #set at a time.

    For the uniform policy this is the exact average over all D! orders of an any-order autoregressive model.

    Arguments:
        policy: P_F over at most 12 bits.
        chunk_size: States per evaluation of the policy.

    Returns:
        (2^D,) float64, in the order of `all_vectors`.
    """
    num_bits = policy.num_bits
    if num_bits > MAX_BITS:
        raise ValueError(f"3^{num_bits} partial states are too many; at most {MAX_BITS} bits")
    states = all_states(num_bits).to(policy.log_z)
    device = states.device
    place = 3 ** torch.arange(num_bits, device=device)  # what setting location d to v adds to the row: (v + 1) 3^d
    child = torch.stack([place, 2 * place])  # (2, D)
    num_set = (states != 0).sum(1)
    mass = torch.zeros(len(states), dtype=torch.float64, device=device)
    mass[0] = 1
    for level in range(num_bits):
        for rows in (num_set == level).nonzero()[:, 0].split(chunk_size):
            s = states[rows]
            flow = mass[rows, None, None] * policy.log_pf(s).double().exp()  # (B, 2, D), 0 where d is set
            legal = (s == 0)[:, None].expand_as(flow)
            mass.index_add_(0, (rows[:, None, None] + child)[legal], flow[legal])
    complete = ((all_vectors(num_bits).to(device).long() + 1) * place).sum(1)
    return mass[complete].log()
