"""What a sentence looks like, in numbers that know nothing of a model: kinds of words, order, rank and nesting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .grammar import FIRST_WORD, Grammar

_LEAST_SPREAD = 0.02  # of a feature that hardly varies in the truth, such as kinds of words that never meet
_OPENER, _CLOSER = "o", "c"


def features(grammar: Grammar, x: Tensor) -> Tensor:
    """Of sequences x (N, T), sentences or not, (N, 5 + K + (K + 1)²) float64, for the K kinds of words.

    Log of the length; the highest and the last count of open brackets; the share of closers that fit the innermost
    open bracket; the mean log rank of words that have one; frequencies of kinds; and of two kinds in a row, with the
    edge of the sentence as one more kind. A kind is a word without its number: o1 … o8 are openers.
    """
    x = x.cpu()
    parts = [_kind_and_rank(word) for word in grammar.words]
    kinds = list(dict.fromkeys(kind for kind, _ in parts))
    kind_of = torch.tensor([0] * FIRST_WORD + [1 + kinds.index(kind) for kind, _ in parts])  # 0 is the edge
    rank_of = torch.tensor([0.0] * FIRST_WORD + [float(rank) for _, rank in parts], dtype=torch.float64)
    kind, rank, num = kind_of[x], rank_of[x], (x >= FIRST_WORD).sum(1).double()  # (N, T), (N, T), (N,)
    opened, closed = (kind == 1 + kinds.index(name) for name in (_OPENER, _CLOSER))
    depth = (opened.long() - closed.long()).cumsum(1)
    mean_rank = rank.clamp(min=1).log().sum(1) / (rank > 0).sum(1).clamp(min=1)
    shape = [num.log1p(), depth.amax(1).clamp(min=0).double(), depth[:, -1].double(), _fitting(x, parts), mean_rank]
    width, edge = len(kinds) + 1, kind.new_zeros(len(x), 1)
    before, after = torch.cat([edge, kind], 1), torch.cat([kind, edge], 1)
    pairs = before * width + after
    pairs[(before == 0) & (after == 0)] = width**2  # padding
    counts = [_counts(kind, width)[:, 1:], _counts(pairs, width**2 + 1)[:, :-1]]
    return torch.cat([torch.stack(shape, 1), *(one / num.clamp(min=1)[:, None] for one in counts)], 1)


def standardised(x: Tensor, reference: Tensor) -> Tensor:
    """Features (N, F) less the means of the reference's (M, F), over their standard deviations."""
    return (x - reference.mean(0)) / reference.std(0).clamp(min=_LEAST_SPREAD)


def _kind_and_rank(word: str) -> tuple[str, int]:
    """`o3` is ("o", 3); a word without a number has the rank 0."""
    kind = word.rstrip("0123456789")
    return kind, int(word[len(kind) :] or 0)


def _counts(values: Tensor, num: int) -> Tensor:
    """How often each of 0 … num - 1 occurs in a row of values (N, T), (N, num) float64."""
    ones = torch.ones_like(values, dtype=torch.float64)
    return torch.zeros(len(values), num, dtype=torch.float64).scatter_add_(1, values, ones)


def _fitting(x: Tensor, parts: Sequence[tuple[str, int]]) -> Tensor:
    """The share of a row's closers whose number is that of the innermost open bracket, (N,); 1 where there are none."""
    words, shares = [("", 0)] * FIRST_WORD + list(parts), []
    for row in x.tolist():
        stack: list[int] = []
        fit = num = 0
        for kind, number in (words[token] for token in row):
            if kind == _OPENER:
                stack.append(number)
            elif kind == _CLOSER:
                num += 1
                fit += bool(stack) and stack.pop() == number
        shares.append(fit / num if num else 1.0)
    return torch.tensor(shares, dtype=torch.float64)
