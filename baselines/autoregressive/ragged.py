"""Sequences of very different lengths without computing their padding: rows in blocks of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..tokens import PAD

SHARE = 0.6  # the shortest row of a block is longer than that share of its longest

States = Callable[[Tensor, Tensor], Tensor]
"""`states(rows, x)`: features (b, t, d) of the tokens x (b, t), which are the first t of the rows (b,)."""


def length_blocks(x: Tensor, budget: int) -> Iterator[tuple[Tensor, int]]:
    """The rows of x (B, T) sorted by length, longest first, in blocks: their numbers (b,) and the longest length.

    Arguments:
        x: Tokens, padded behind; an empty row counts as one of length 1.
        budget: A block holds at most that many tokens, padding included; a row that is longer is a block of its own.
    """
    lengths, order = (x != PAD).sum(1).clamp(min=1).sort(descending=True, stable=True)
    sorted_lengths: list[int] = lengths.tolist()
    begin = 0
    while begin < len(sorted_lengths):
        longest = sorted_lengths[begin]
        end, most = begin + 1, begin + max(1, budget // longest)
        while end < min(most, len(sorted_lengths)) and sorted_lengths[end] > SHARE * longest:
            end += 1
        yield order[begin:end], longest
        begin = end


def token_states(states: States, x: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Features of the tokens of x (B, T) that are not padding, (N, d), and where they stand in x.flatten(), (N,)."""
    found, places = [], []
    for rows, length in length_blocks(x, budget):
        part = x[rows, :length]
        place = rows[:, None] * x.shape[1] + torch.arange(length, device=x.device)
        features, real = states(rows, part), part != PAD
        if bool(real.all()):  # as of windows; picking all by number is dear, and its gradient more so
            found.append(features.flatten(0, 1))
            places.append(place.flatten())
        else:
            found.append(features[real])
            places.append(place[real])
    return (found[0], places[0]) if len(found) == 1 else (torch.cat(found), torch.cat(places))


def placed(values: Tensor, places: Tensor, x: Tensor) -> Tensor:
    """Values (N,) at their places in x.flatten(), in the shape of x (B, T), with zeros elsewhere."""
    found = values.new_zeros(x.numel())
    found[places] = values
    return found.view(x.shape)


def mean_states(states: States, x: Tensor, budget: int) -> Tensor:
    """The mean (B, d) of the features of every row's tokens, padding left out; 0 for a row without tokens."""
    features, places = token_states(states, x, budget)
    total = features.new_zeros(len(x), features.shape[1]).index_add_(0, places // x.shape[1], features)
    return total / (x != PAD).sum(1, keepdim=True).clamp(min=1)
