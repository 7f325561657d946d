"""The forward and backward passes of a hidden Markov model that ends, and expectation maximisation.

z_1 is drawn from the start's row, x_t from the row of z_t, and from z_t the chain moves to z_t+1 or to the end:

    p(x_1 … x_n, z) = pi(z_1) prod_t B(z_t, x_t) prod_t A(z_t, z_t+1) A(z_n, end),     p(no words) = pi(end).

All passes are scaled: alpha_t(k) = p(z_t = k | x_1 … x_t) and c_t = p(x_t | x_1 … x_t-1).

Sources: L. R. Rabiner, "A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition", 1989,
sections III and V.A (scaling); L. E. Baum, T. Petrie, G. Soules, N. Weiss, 1970 (the ascent).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .packing import Packed


class Chain(NamedTuple):
    """A hidden Markov model of K states over V tokens; rows are distributions."""

    start: Tensor
    """pi (K + 1,): of the first state, the end last."""
    transition: Tensor
    """A (K, K + 1): from each state to each, and to the end last. Where sequences have no end its column is 0."""
    emission: Tensor
    """B (K, V); 0 for padding, and for the end's token where the end is a state."""

    @property
    def num_states(self) -> int:
        return len(self.emission)


class Penalty(NamedTuple):
    """Pseudo-counts, that is the log-density of Dirichlet priors up to a constant; each at least 0."""

    transition: float
    """Of each move that is allowed, the start's included."""
    emission: float
    """Of each token that is allowed in each state."""

    def log_prior(self, chain: Chain) -> float:
        """The part of the objective that is no likelihood."""
        moves = sum(float(p[p > 0].double().log().sum()) for p in (chain.start, chain.transition))
        tokens = float(chain.emission[chain.emission > 0].double().log().sum())
        return self.transition * moves + self.emission * tokens


class Filtered(NamedTuple):
    """What the forward pass leaves of a packed block of N words in R rows."""

    alpha: Tensor
    """p(z_t | x_1 … x_t), (N, K)."""
    scale: Tensor
    """p(x_t | x_1 … x_t-1) of each word, (N,)."""
    end: Tensor
    """p(end | x_1 … x_n) of each row, (R,); 1 where sequences have no end."""


def forward(chain: Chain, packed: Packed, *, ends: bool) -> Filtered:
    """The scaled forward pass."""
    num_states, by_token = chain.num_states, chain.emission.T.contiguous()
    between = chain.transition[:, :num_states].contiguous()
    alpha = by_token[packed.tokens]  # (N, K), B(k, x_t) until its position's turn comes
    scale = alpha.new_empty(len(alpha))
    expected, before = chain.start[:num_states], 0
    for begin, size in zip(packed.offsets, packed.sizes, strict=False):
        now = alpha[begin : begin + size]
        if begin:
            expected = alpha[before : before + size] @ between
        now *= expected
        torch.sum(now, 1, out=scale[begin : begin + size])
        now /= scale[begin : begin + size, None]
        before = begin
    end = alpha.new_ones(len(packed.rows))
    if ends:
        last = alpha[packed.last] @ chain.transition[:, num_states]
        end = torch.cat([last, chain.start[num_states].expand(len(end) - len(last))])
    return Filtered(alpha, scale, end)


def smooth(chain: Chain, packed: Packed, found: Filtered, *, ends: bool) -> tuple[Tensor, Tensor]:
    """The backward pass: p(z_t | x) (N, K), and w_t(k) = B(k, x_t) beta_t(k) / c_t (N, K).

    beta_t(k) is p(what follows x_t | z_t = k) / p(what follows | x_1 … x_t), so alpha_t beta_t = p(z_t | x).
    """
    num_states = chain.num_states
    back = chain.transition[:, :num_states].T.contiguous()
    weight = chain.emission.T.contiguous()[packed.tokens]
    posterior, offsets = found.alpha.clone(), packed.offsets
    num_longer = 0
    for t in reversed(range(len(packed.sizes))):
        begin, size = offsets[t], packed.sizes[t]
        beta = weight.new_ones(size, num_states)
        if num_longer:
            torch.matmul(weight[offsets[t + 1] : offsets[t + 1] + num_longer], back, out=beta[:num_longer])
        if ends:
            beta[num_longer:] = chain.transition[:, num_states] / found.end[num_longer:size, None]
        posterior[begin : begin + size] *= beta
        weight[begin : begin + size] *= beta / found.scale[begin : begin + size, None]
        num_longer = size
    return posterior, weight


def log_prob(chain: Chain, packed: Packed, *, ends: bool) -> float:
    """Sum of log p of the packed sequences, in nats."""
    found = forward(chain, packed, ends=ends)
    return float(found.scale.double().log().sum() + found.end.double().log().sum())


def em_step(chain: Chain, blocks: Sequence[Packed], penalty: Penalty, *, ends: bool) -> tuple[Chain, float]:
    """One step of EM: the new chain, and the penalised log-likelihood of the old one in nats, which never falls."""
    num_states = chain.num_states
    start, moves = torch.zeros_like(chain.start), torch.zeros_like(chain.transition)
    tokens, total = torch.zeros_like(chain.emission.T.contiguous()), penalty.log_prior(chain)
    for packed in blocks:
        found = forward(chain, packed, ends=ends)
        total += float(found.scale.double().log().sum() + found.end.double().log().sum())
        posterior, weight = smooth(chain, packed, found, ends=ends)
        tokens.index_add_(0, packed.tokens, posterior)
        offsets, sizes = packed.offsets, packed.sizes
        if sizes:
            start[:num_states] += posterior[: sizes[0]].sum(0)
            follows = [found.alpha[begin : begin + size] for begin, size in zip(offsets, sizes[1:], strict=False)]
            if follows:
                moves[:, :num_states] += torch.cat(follows).T @ weight[sizes[0] :]
        if ends:
            moves[:, num_states] += posterior[packed.last].sum(0)
            start[num_states] += len(packed.rows) - (sizes[0] if sizes else 0)
    moves[:, :num_states] *= chain.transition[:, :num_states]
    new = Chain(
        _normalized(start, chain.start, penalty.transition),
        _normalized(moves, chain.transition, penalty.transition),
        _normalized(tokens.T.contiguous(), chain.emission, penalty.emission),
    )
    return new, total


def _normalized(counts: Tensor, old: Tensor, pseudo: float) -> Tensor:
    """Rows of counts plus pseudo-counts as distributions; what had probability 0 keeps it, and so do rows unused."""
    counts = torch.where(old > 0, counts + pseudo, 0.0)
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=torch.finfo(counts.dtype).tiny), old)
