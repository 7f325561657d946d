"""Interpolated Kneser-Ney smoothing: from counts of n-grams to discounted probabilities and weights of backing off.

For an n-gram h w of the model's full length, and for one that begins at the start of a row, a(h w) is its count; for
a shorter one it is the number of different tokens that precede it. With D_1, D_2, D_3 for a = 1, a = 2 and a >= 3,

    p(w | h) = (a(h w) - D_a) / sum_v a(h v) + b(h) p(w | h'),    b(h) = sum_v D_a(h v) / sum_v a(h v),

where h' is h without its first token; p(w | h) = p(w | h') where h was never seen. Below the unigrams lies the uniform
distribution over all tokens but PAD, so nothing has probability 0. With one discount, D_1 = D_2 = D_3.

Sources: R. Kneser, H. Ney, "Improved backing-off for m-gram language modeling", 1995; S. F. Chen, J. Goodman, "An
Empirical Study of Smoothing Techniques for Language Modeling", 1998, TR-10-98 (interpolation, three discounts and
their estimates); K. Heafield et al., "Scalable Modified Kneser-Ney Language Model Estimation", 2013 (n-grams at the
start keep their counts, since nothing precedes them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...tokens import PAD
from .counting import NGrams

FALLBACK = (0.5, 1.0, 1.5)  # half of what they are taken from, where counts give no estimate


class Level(NamedTuple):
    """The smoothed n-grams of one length, M of them."""

    keys: Tensor
    """(M,) int64 as in NGrams; of length 1 empty."""
    prob: Tensor
    """The first term of p(w | h), of each n-gram h w, (M,) float64; of length 1 all of p(w), 0 for PAD."""
    backoff: Tensor
    """b(g) of each n-gram g as a context, (M,) float64; 1 where it never was one."""


def discounts(adjusted: Tensor, kind: str) -> Tensor:
    """D_1, D_2, D_3 (3,), float64, from the adjusted counts a (M,) of one length.

    With n_r the number of n-grams of a = r and Y = n_1 / (n_1 + 2 n_2): Y for all three of kind `one`, and
    r - (r + 1) Y n_(r+1) / n_r for D_r of kind `three`. They need n_1 … n_2 (n_4) above 0 and must lie between 0 and r;
    otherwise it is half of r (of kind `one`: 1/2) for all r.
    """
    n = adjusted.clamp(max=5).bincount(minlength=6).tolist()
    fallback = torch.tensor(FALLBACK, dtype=torch.float64)
    if kind == "one":
        return torch.full_like(fallback, n[1] / (n[1] + 2 * n[2])) if n[1] and n[2] else fallback[:1].expand(3)
    if not all(n[1:5]):
        return fallback
    y = n[1] / (n[1] + 2 * n[2])
    estimates = [r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3)]
    return torch.tensor(estimates, dtype=torch.float64) if all(d > 0 for d in estimates) else fallback


def adjusted_counts(ngrams: Sequence[NGrams], order: int) -> list[Tensor]:
    """a of the n-grams of lengths 1 … `order` for a model of that order, (M,) int64 each."""
    found = []
    for length, own in enumerate(ngrams[:order], start=1):
        if length == order:
            found.append(own.counts)
        else:
            preceded = ngrams[length].suffix.bincount(minlength=len(own.counts))
            found.append(torch.where(own.at_start, own.counts, preceded))
    return found


def kneser_ney(ngrams: Sequence[NGrams], order: int, given: Sequence[Tensor]) -> list[Level]:
    """The smoothed n-grams of lengths 1 … `order`.

    Arguments:
        ngrams: Counts of lengths 1 … at least `order`.
        given: The discounts (3,) of each length.
    """
    vocab_size = len(ngrams[0].counts)
    levels: list[Level] = []
    for length, a in enumerate(adjusted_counts(ngrams, order), start=1):
        keys, weight = ngrams[length - 1].keys, a.double()
        by_count = torch.cat([given[length - 1].new_zeros(1), given[length - 1]]).to(weight.device)
        removed = by_count[a.clamp(max=3)].minimum(weight)
        if length == 1:
            total = weight.sum().clamp(min=1e-300)
            rest = removed.sum() / total if bool(a.any()) else weight.new_ones(())
            prob = (weight - removed) / total + rest / (vocab_size - 1)
            prob[PAD] = 0
        else:
            context, size = keys // vocab_size, len(levels[-1].prob)
            total = torch.bincount(context, weight, minlength=size)
            rest = torch.bincount(context, removed, minlength=size) / total.clamp(min=1)
            levels[-1] = levels[-1]._replace(backoff=torch.where(total > 0, rest, 1.0))
            prob = (weight - removed) / total[context]
        levels.append(Level(keys, prob, torch.ones_like(prob)))
    return levels
