"""A learning rate that is halved when the validation loss has stopped falling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_DECAYS = 5


class Plateau(nn.Module):
    """The factor on the learning rate: halved after `patience` looks in a row without a new best loss.

    Arguments:
        patience: Looks.
        hold: Share of training before which the rate is not halved.

    Source: the published code of J. He et al., "Lagging Inference Networks and Posterior Collapse in Variational
    Autoencoders", 2019, arXiv 1901.05534, which ends training at the fifth halving where this goes on.
    """

    def __init__(self, patience: int, hold: float) -> None:
        super().__init__()
        self.patience, self.hold = patience, hold
        self.num_decays: Tensor
        self.num_bad: Tensor
        self.best: Tensor
        self.register_buffer("num_decays", torch.tensor(0))
        self.register_buffer("num_bad", torch.tensor(0))
        self.register_buffer("best", torch.tensor(torch.inf, dtype=torch.float64))

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by."""
        return float(0.5 ** int(self.num_decays))

    def looked(self, loss: Tensor, fraction: float) -> None:
        """Takes note of a validation loss, a scalar, after this fraction of training."""
        if bool(loss < self.best):
            self.best.copy_(loss)
            self.num_bad.zero_()
            return
        self.num_bad += 1
        if int(self.num_bad) >= self.patience and fraction >= self.hold and int(self.num_decays) < MOST_DECAYS:
            self.num_decays += 1
            self.num_bad.zero_()
