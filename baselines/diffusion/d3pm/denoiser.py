"""The denoising network of the D3PM: a residual perceptron over all bits that knows the time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

FREQUENCIES = 32  # of sines and cosines of the time, from 1 to 1000 radians over the whole process


class Block(nn.Module):
    """h + W_2 silu(W_1 silu(norm(h)) + what the time says)."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.first = nn.Linear(hidden, hidden)
        self.time = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        update: Tensor = self.second(self.dropout(silu(self.first(silu(self.norm(h))) + self.time(time))))
        return h + update


class Denoiser(nn.Module):
    """Log odds that each bit was 1 at time 0, from what is left of all of them at time t.

    Arguments:
        num_inputs: Numbers that describe the state.
        dim: Bits D.
        hidden: Width of the residual stream.
        num_blocks: Residual blocks.
        dropout: Probability with which a block's hidden unit is dropped in training.
    """

    def __init__(self, num_inputs: int, dim: int, hidden: int, num_blocks: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(num_inputs, hidden)
        self.time = nn.Linear(2 * FREQUENCIES, hidden)
        self.blocks = nn.ModuleList(Block(hidden, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(hidden)
        self.last = nn.Linear(hidden, dim)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(0, 3, FREQUENCIES), persistent=False)

    def forward(self, state: Tensor, fraction: Tensor) -> Tensor:
        """Logits (B, D) for the state (B, num_inputs) at the fraction t / T (B,) or (1,) of the process."""
        angles = fraction[:, None] * self.frequencies
        time = silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)))
        h = self.first(state)
        for block in self.blocks:
            h = block(h, time)
        logits: Tensor = self.last(silu(self.norm(h)))
        return logits
