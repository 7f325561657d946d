"""Counts of all n-grams of a corpus, with sorts instead of dictionaries.

An n-gram is found through its prefix: those of each length are numbered in the order of their keys, and the key of a
k-gram is (number of its first k - 1 tokens) * V + (its last token), which fits 64 bits at any length. The start of a
row is a symbol of its own, written as PAD's id, which nothing else in a context has; it is never counted as a unigram.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...tokens import PAD


class NGrams(NamedTuple):
    """The distinct n-grams of one length that occur, M of them; of length 1 all V tokens, seen or not."""

    keys: Tensor
    """(M,) int64, ascending; of length 1 empty: number and token are the same."""
    counts: Tensor
    """How often each occurs, (M,) int64."""
    suffix: Tensor
    """The number of each without its first token among those one shorter, (M,) int64; of length 1 empty."""
    at_start: Tensor
    """Whether it begins with the start symbol, (M,)."""


def count_ngrams(x: Tensor, vocab_size: int, order: int) -> list[NGrams]:
    """The n-grams of lengths 1 … `order` of sequences x (B, T), a row's start included, its padding not."""
    rows = torch.cat([torch.full_like(x[:, :1], PAD), x], 1)
    keep = rows != PAD
    keep[:, 0] = True
    place = torch.arange(rows.shape[1], device=x.device).expand_as(rows)[keep]  # 0 at the start of a row
    tokens = rows[keep]
    none = tokens.new_zeros(0)
    unigrams = tokens[place > 0].bincount(minlength=vocab_size)
    found = [NGrams(none, unigrams, none, torch.arange(vocab_size, device=x.device) == PAD)]
    number = tokens  # of the n-gram that ends at each position
    for length in range(2, order + 1):
        at = (place >= length - 1).nonzero()[:, 0]
        keys, which = _distinct(number[at - 1] * vocab_size + tokens[at])
        suffix, at_start = torch.empty_like(keys), torch.empty_like(keys, dtype=torch.bool)
        suffix[which] = number[at]
        at_start[which] = place[at] == length - 1
        found.append(NGrams(keys, which.bincount(minlength=len(keys)), suffix, at_start))
        number = torch.full_like(tokens, -1)
        number[at] = which
    return found


def _distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values (M,), ascending, and which of them each of `values` (N,) is, (N,)."""
    ordered, order = values.sort()
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    which = torch.empty_like(order)
    which[order] = new.cumsum(0) - 1
    return ordered[new], which
