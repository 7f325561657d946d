"""Sequences of different lengths as one tensor of words, so that no arithmetic is spent on padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...tokens import PAD, trimmed


class Packed(NamedTuple):
    """The words of R sequences, longest first: all first words, then all second words, and so on, N in all.

    Since lengths fall from row to row, the rows that have a word at position t are the first `sizes[t]`.
    """

    tokens: Tensor
    """(N,) int64."""
    sizes: list[int]
    """How many rows have a word at each position, T numbers, none 0."""
    rows: Tensor
    """Which of the given sequences each packed one is, (R,) int64."""
    lengths: Tensor
    """Their numbers of words, (R,) int64, descending; 0 for an empty sequence."""

    @property
    def offsets(self) -> list[int]:
        """Where the words of each position begin in `tokens`, T + 1 numbers."""
        found = [0]
        for size in self.sizes:
            found.append(found[-1] + size)
        return found

    @property
    def last(self) -> Tensor:
        """Where in `tokens` the last word of each row is that has words, (sizes[0],)."""
        offsets = torch.tensor(self.offsets, device=self.lengths.device)
        lengths = self.lengths[: self.sizes[0] if self.sizes else 0]
        return offsets[lengths - 1] + torch.arange(len(lengths), device=lengths.device)

    def unpacked(self, values: Tensor, width: int) -> Tensor:
        """values (N,) of the words, one row a sequence in the order of packing, (R, width); 0 behind them."""
        found = values.new_zeros(len(self.rows), width)
        for t, (begin, size) in enumerate(zip(self.offsets, self.sizes, strict=False)):
            found[:size, t] = values[begin : begin + size]
        return found


def pack(x: Tensor, *, ends: bool, num_rows: int) -> list[Packed]:
    """Sequences x (B, T) in blocks of at most `num_rows` rows of like lengths; the end of a row is no word of it."""
    x = trimmed(x)
    lengths = (x != PAD).sum(1) - int(ends)
    lengths, order = lengths.sort(descending=True, stable=True)
    found = []
    for rows, own in zip(order.split(num_rows), lengths.split(num_rows), strict=True):
        sizes = [int((own > t).sum()) for t in range(int(own[0]))]
        words = [x[rows[:size], t] for t, size in enumerate(sizes)]
        found.append(Packed(torch.cat(words) if words else x.new_zeros(0), sizes, rows, own))
    return found
