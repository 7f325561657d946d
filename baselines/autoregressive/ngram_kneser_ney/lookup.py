"""Probabilities and draws of tokens from the tables of a smoothed n-gram model, for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

from gmbench.samplers.noise import uniforms

from ...tokens import PAD
from .smoothing import Level


def find(level: Level, context: Tensor, token: Tensor, vocab_size: int) -> Tensor:
    """The numbers of the n-grams (context, token), of any shape; -1 where there is none, or no such context."""
    if len(level.keys) == 0:
        return torch.full_like(context, -1)
    key = context * vocab_size + token
    number = torch.searchsorted(level.keys, key).clamp(max=len(level.keys) - 1)
    return torch.where((context >= 0) & (level.keys[number] == key), number, -1)


def token_probs(levels: Sequence[Level], x: Tensor) -> Tensor:
    """p(x_t | x_1 … x_t-1) of sequences x (B, T), (B, T), float64; meaningless where x is padding."""
    vocab_size = len(levels[0].prob)
    number = torch.cat([torch.full_like(x[:, :1], PAD), x], 1)  # of the n-gram that ends at each position, (B, T + 1)
    p = levels[0].prob.double()[x]
    for shorter, level in pairwise(levels):
        context = number[:, :-1]
        number = torch.cat([torch.full_like(x[:, :1], -1), find(level, context, x, vocab_size)], 1)
        p = torch.where(context >= 0, shorter.backoff.double()[context.clamp(min=0)], 1.0) * p
        if len(level.keys):
            p = p + torch.where(number[:, 1:] >= 0, level.prob.double()[number[:, 1:].clamp(min=0)], 0.0)
    return p


class Drawer:
    """Draws the tokens of several rows, one position after the other.

    The longest known context gives a token with the mass of its discounted probabilities; with the weight of backing
    off the next shorter one is asked, and so on down to the unigrams: a draw from the mixture that p(w | h) is.
    """

    def __init__(self, levels: Sequence[Level], num: int) -> None:
        self._levels, self._vocab_size = levels, len(levels[0].prob)
        self._mass = [torch.cat([p.prob.new_zeros(1).double(), p.prob.double().cumsum(0)]) for p in levels]
        # of the last 1, 2, … tokens: their n-grams' numbers, (num,) each; before the first token, the start alone
        start = torch.full((num,), PAD, device=levels[0].prob.device)
        self._context = [start] + [torch.full_like(start, -1)] * (len(levels) - 2)

    def next(self, rng: Generator) -> Tensor:
        """The next token of every row, (num,)."""
        token = torch.full_like(self._context[0], -1)
        for length in range(len(self._levels), 1, -1):
            level, mass, context = self._levels[length - 1], self._mass[length - 1], self._context[length - 2]
            if len(level.keys) == 0:
                continue
            known = context.clamp(min=0)
            first = torch.searchsorted(level.keys, known * self._vocab_size)
            last = torch.searchsorted(level.keys, (known + 1) * self._vocab_size)
            own = mass[last] - mass[first]
            u = uniforms(tuple(token.shape), mass, rng) * (own + self._levels[length - 2].backoff[known])
            # PAD's key is never there, so `first` is a token of this context wherever the context has any
            here = (token < 0) & (context >= 0) & (u < own)
            chosen = torch.searchsorted(mass, mass[first] + u, right=True) - 1
            chosen = torch.maximum(torch.minimum(chosen, last - 1), first).clamp(max=len(level.keys) - 1)
            token = torch.where(here, level.keys[chosen] - known * self._vocab_size, token)
        mass = self._mass[0]
        u = uniforms(tuple(token.shape), mass, rng) * mass[-1]
        lowest = (torch.searchsorted(mass, u, right=True) - 1).clamp(max=self._vocab_size - 1)
        token = torch.where(token < 0, lowest, token)
        self._move(token)
        return token

    def _move(self, token: Tensor) -> None:
        before, self._context = self._context, [token]
        for level, context in zip(self._levels[1:-1], before, strict=False):
            self._context.append(find(level, context, token, self._vocab_size))
