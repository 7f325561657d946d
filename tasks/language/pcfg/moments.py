"""What is known of an s-grammar in closed form: entropy, mean length, and the mass and entropy of every length.

With M_AB the expected number of Bs on the right side of A and d_A the entropy of the choice among A's rules, the
entropies of derivations solve H = d + M H; they are finite where the spectral radius of M is below 1.

Source: U. Grenander, "Syntax-controlled probabilities", 1967 (the entropy of a grammar's derivations).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .grammar import Grammar

_STEP = 1e-30  # of a derivative by a complex step: no difference is taken, so nothing is rounded


class Moments(NamedTuple):
    """Of sentences without limit of length; words are counted without the end of the sentence."""

    spectral_radius: float
    entropy: float
    """H in nats a sentence."""
    mean_length: float
    """E[len] in words a sentence."""

    @property
    def perplexity(self) -> float:
        """exp(H / E[len]): where Σ nats / Σ words of a growing corpus tends to, exponentiated."""
        return math.exp(self.entropy / self.mean_length)


class Lengths(NamedTuple):
    """Of sentences of 0, 1, … max_words words, each (max_words + 1,) float64."""

    mass: Tensor
    """p(length)."""
    nats: Tensor
    """E[-log p(x); length]: what the sentences of this length add to the entropy."""


def moments(grammar: Grammar, theta: Tensor) -> Moments:
    """H = (I - M)^-1 d and E[len] = (I - M)^-1 1, from the rules' probabilities (R,).

    Raises:
        ValueError: The probabilities of a symbol's rules do not sum to 1, or the mean length is infinite.
    """
    theta, heads, num = theta.double(), grammar.heads, len(grammar.symbols)

    def by_symbol(values: Tensor) -> Tensor:
        return torch.zeros(num, dtype=torch.float64).index_add_(0, heads, values)

    off = (by_symbol(theta) - 1).abs()
    if float(off.max()) > 1e-12:
        raise ValueError(f"the probabilities of the rules of {grammar.symbols[int(off.argmax())]} do not sum to 1")
    M = torch.zeros(num, num, dtype=torch.float64)
    for index, body in enumerate(_bodies(grammar)):
        for symbol in body:
            M[heads[index], symbol] += theta[index]
    radius = float(torch.linalg.eigvals(M).abs().max())
    if radius >= 1:
        raise ValueError(f"the spectral radius is {radius:.4g}: sentences of finite mean length need one below 1")
    is_word = torch.tensor([float(bool(rule.word)) for rule in grammar.rules], dtype=torch.float64)
    costs = torch.stack([by_symbol(-torch.xlogy(theta, theta)), by_symbol(theta * is_word)], 1)  # (A, 2): d and 1
    of_start = torch.linalg.solve(torch.eye(num, dtype=torch.float64) - M, costs)[_start(grammar)].sum(0)
    return Moments(radius, float(of_start[0]), float(of_start[1]))


def lengths(grammar: Grammar, theta: Tensor, max_words: int) -> Lengths:
    """The exact distribution of lengths up to `max_words`, by a recursion over them.

    A symbol's n words are a first word and the n - 1 of a rule's body. With θ^s in the place of θ the masses become
    E[p(x)^(s - 1); n], whose derivative at s = 1 is E[log p(x); n]: complex numbers carry both.

    Raises:
        ValueError: Something follows the end of the sentence in a rule.
    """
    weights: dict[tuple[int, tuple[int, ...]], complex] = {}  # of the rules of a symbol with one body, together
    f = np.zeros((len(grammar.symbols), max_words + 1), dtype=np.complex128)  # by symbol and number of words
    for rule, body, head, p in zip(
        grammar.rules, _bodies(grammar), grammar.heads.tolist(), theta.double().tolist(), strict=True
    ):
        w = complex(p, p * math.log(p) * _STEP) if p > 0 else 0j
        if rule.word:
            weights[head, body] = weights.get((head, body), 0j) + w
        elif body:
            raise ValueError(f"the rule {rule} goes on after the end of the sentence")
        else:
            f[head, 0] += w
    # of the first k symbols of a body together, k = 0, 1, …
    g = {body[:k]: np.zeros(max_words + 1, dtype=np.complex128) for _, body in weights for k in range(len(body) + 1)}
    g[()][0] = 1
    inner = [part for part in sorted(g, key=len) if part]
    for n in range(max_words + 1):
        if n > 0:
            for (head, body), w in weights.items():
                f[head, n] += w * g[body][n - 1]
        for part in inner:
            g[part][n] = g[part[:-1]][: n + 1] @ f[part[-1], n::-1]
    found = g[()]
    for symbol in _start(grammar):
        found = np.convolve(found, f[symbol])[: max_words + 1]
    return Lengths(torch.from_numpy(found.real.copy()), torch.from_numpy(-found.imag / _STEP))


def _bodies(grammar: Grammar) -> list[tuple[int, ...]]:
    return [tuple(grammar.number[name] for name in rule.body) for rule in grammar.rules]


def _start(grammar: Grammar) -> list[int]:
    return [grammar.number[name] for name in grammar.start]
