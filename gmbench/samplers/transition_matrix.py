"""Exact transition matrices over all 2^D states, built from the very functions that the kernels step with."""

from __future__ import annotations

import torch
from torch import Tensor

from gmbench.samplers.gibbs import GibbsSweep, RandomScanGibbs, conditional_logit
from gmbench.samplers.informed import InformedKernel, Local
from gmbench.samplers.kernel import Kernel
from gmbench.samplers.metropolis import acceptance_probability
from gmbench.samplers.target import Target, flipped, site_delta

MAX_DIM = 10


def all_states(dim: int) -> Tensor:
    """Every vector of {0, 1}^dim, ordered as binary numbers, first bit highest: (2^dim, dim) float64."""
    if not 1 <= dim <= 20:
        raise ValueError(f"enumeration takes 1 to 20 bits, not {dim}")
    powers = 2 ** torch.arange(dim - 1, -1, -1)
    return (torch.arange(2**dim)[:, None] // powers % 2).to(torch.float64)


def state_index(x: Tensor) -> Tensor:
    """The row of `all_states` that each row of x (B, D) is, int64 (B,)."""
    dim = x.shape[1]
    powers = 2 ** torch.arange(dim - 1, -1, -1, device=x.device)
    return (x.to(torch.int64) * powers).sum(1)


def target_probabilities(target: Target, dim: int) -> Tensor:
    """The normalised probabilities of all states, (2^dim,) float64."""
    with torch.no_grad():
        return torch.softmax(target.log_prob(all_states(dim)), dim=0)


@torch.no_grad()
def transition_matrix(kernel: Kernel, target: Target, dim: int) -> Tensor:
    """P[a, b], the probability that one step of the kernel leads from state a to state b, (2^dim, 2^dim) float64.

    Arguments:
        kernel: One of `GibbsSweep`, `RandomScanGibbs` and the informed kernels.
        target: A target that takes float64 states.
        dim: Number of bits, at most 10.
    """
    if dim > MAX_DIM:
        raise ValueError(f"a transition matrix over {dim} bits is too large; at most {MAX_DIM}")
    if isinstance(kernel, GibbsSweep):
        matrix = torch.eye(2**dim, dtype=torch.float64)
        for i in range(dim):
            matrix = matrix @ _site_matrix(target, dim, i)
        return matrix
    if isinstance(kernel, RandomScanGibbs):
        one = torch.stack([_site_matrix(target, dim, i) for i in range(dim)]).mean(0)
        return torch.matrix_power(one, kernel.num_sites)
    if isinstance(kernel, InformedKernel):
        return _informed_matrix(kernel, target, dim)
    raise TypeError(f"no transition matrix is known for {type(kernel).__name__}")


def _site_matrix(target: Target, dim: int, i: int) -> Tensor:
    x = all_states(dim)
    probability_of_one = torch.sigmoid(conditional_logit(x[:, i], site_delta(target, x, i)))
    probability_of_flip = torch.where(x[:, i] > 0.5, 1 - probability_of_one, probability_of_one)
    matrix = torch.diag(1 - probability_of_flip)
    matrix[torch.arange(2**dim), state_index(flipped(x, i))] = probability_of_flip
    return matrix


def _informed_matrix(kernel: InformedKernel, target: Target, dim: int) -> Tensor:
    x = all_states(dim)
    num = len(x)
    at = kernel.look(x, target)
    a, b = torch.arange(num).repeat_interleave(num), torch.arange(num).repeat(num)
    here, there = Local(at.log_prob[a], at.delta[a]), Local(at.log_prob[b], at.delta[b])
    forward = kernel.log_proposal(x[a], x[b], here.delta)
    possible = forward > -torch.inf
    probability = torch.where(possible, forward.exp(), 0.0)
    if kernel.mh:
        log_ratio = kernel.log_ratio(x[a], x[b], here, there)
        probability = torch.where(possible, probability * acceptance_probability(log_ratio, kernel.rule), 0.0)
    matrix = probability.reshape(num, num)
    # what is rejected stays where it is; for a kernel that accepts all, the rows already sum to one
    return matrix + torch.diag(1 - matrix.sum(1))
