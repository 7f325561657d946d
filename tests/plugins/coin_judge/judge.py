"""A judge of coins: standardised sums of bits with given signs, and the more likely of two biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from gmbench.judge import Judge
from gmbench.spaces import BinaryVector


class CoinJudge(Judge):
    def __init__(self, num_bits: int, num_features: int) -> None:
        super().__init__()
        self.space = BinaryVector(num_bits)
        self.num_features, self.num_classes = num_features, 2
        self.signs = torch.nn.Parameter(torch.zeros(num_features, num_bits))

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> Self:
        judge = cls(weights["signs"].shape[1], len(weights["signs"]))
        judge.load_state_dict(dict(weights))
        return judge

    def features(self, x: Tensor) -> Tensor:
        return (2 * x - 1) @ self.signs.T / x.shape[1] ** 0.5

    def logits(self, x: Tensor) -> Tensor:
        total = x.sum(1)
        return torch.stack([total, x.shape[1] - total], 1)
