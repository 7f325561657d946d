"""The forward and backward policies of a GFlowNet over binary vectors that are built one location at a time.

Zhang, Malkin, Liu, Volokhova, Courville, Bengio: Generative Flow Networks for Discrete Probabilistic Modeling,
ICML 2022, arXiv 2202.01361.

A state s is in {-1, 0, +1}^D: 0 is a location not yet set, -1 and +1 are the bits 0 and 1. An edge s -> s' sets one
location; the trajectory s_0 = (0, ..., 0) -> ... -> s_D = 2x - 1 sets all D.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mlp import MLP

Backward = Literal["learned", "uniform"]

_MASKED = -1e30  # finite, so that a state without any legal action gives numbers and not NaN


def signed(x: Tensor) -> Tensor:
    """Bits {0, 1} -> complete states {-1, +1}."""
    return 2 * x - 1


def bits(s: Tensor) -> Tensor:
    """Complete states {-1, +1} -> bits {0, 1}."""
    return (s + 1) / 2


class Policy(nn.Module):
    """P_F(s' | s), P_B(s | s') and log Z, from one MLP on s.

    `backward="learned"`: the MLP has 3D outputs. P_F(set location d to v | s) is a softmax of 2D logits over the legal
    pairs (d, v), P_B(clear d | s') a softmax of D logits over the set locations.

    `backward="uniform"`: P_B(clear d | s') = 1 / #set, and the order of the forward policy is uniform as well, so that
    P_F(set d to v | s) = p(x_d = v | s) / #unset with a Bernoulli p: an any-order autoregressive model. The MLP has D
    outputs, the log-odds of x_d = 1 (two logits per location would enter by their difference only).

    The published code encodes an unset location as -1 beside data in {0, 1}; 0 beside -1 and +1 treats the two bits
    alike.

    Arguments:
        num_bits: D.
        backward: Which backward policy.
        hidden: Width of the MLP.
        num_layers: Number of its hidden layers.
    """

    def __init__(
        self, num_bits: int, *, backward: Backward = "learned", hidden: int = 256, num_layers: int = 3
    ) -> None:
        super().__init__()
        if backward not in ("learned", "uniform"):
            raise ValueError(f"backward must be 'learned' or 'uniform', not {backward!r}")
        self.num_bits = num_bits
        self.backward = backward
        num_outputs = 3 * num_bits if backward == "learned" else num_bits
        self.mlp = MLP(num_bits, num_outputs, hidden=hidden, num_layers=num_layers)
        self.log_z = nn.Parameter(torch.zeros(()))

    def log_pf(self, s: Tensor) -> Tensor:
        """log P_F(set location d to v | s).

        Arguments:
            s: (B, D), states.

        Returns:
            (B, 2, D), the value v before the location d; about -1e30 where d is already set. Of a complete state, from
            which no edge leads, the answer means nothing.
        """
        outputs: Tensor = self.mlp(s)
        if self.backward == "learned":
            return log_softmax_legal(*split_learned(outputs, s)[0]).view(-1, 2, self.num_bits)
        log_p = torch.stack([F.logsigmoid(-outputs), F.logsigmoid(outputs)], 1) - (s == 0).sum(1).log()[:, None, None]
        return log_p.masked_fill((s != 0)[:, None], _MASKED)

    def log_pb(self, s: Tensor) -> Tensor:
        """log P_B(clear location d | s).

        Arguments:
            s: (B, D), states.

        Returns:
            (B, D); about -1e30 where d is not set. Of the empty state the answer means nothing.
        """
        if self.backward == "learned":
            return log_softmax_legal(*split_learned(self.mlp(s), s)[1])
        return log_softmax_legal(torch.zeros_like(s), s != 0)


def split_learned(outputs: Tensor, s: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The outputs (B, 3D) of the learned kind as ((add logits (B, 2D), legal), (delete logits (B, D), legal)).

    Column v * D + d of the add logits sets location d to v.
    """
    num_bits = s.shape[1]
    is_set = s != 0
    unset = ~is_set
    return (outputs[:, : 2 * num_bits], torch.cat([unset, unset], 1)), (outputs[:, 2 * num_bits :], is_set)


def log_softmax_legal(logits: Tensor, legal: Tensor) -> Tensor:
    """log softmax over the legal actions of each row; the others get about -1e30, whose exponential is 0."""
    return logits.masked_fill(~legal, _MASKED).log_softmax(1)
