"""The weights with the best validation loss, kept beside those that train."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Best(nn.Module):
    """A copy of a network as it was when its validation loss was least.

    Arguments:
        network: The network that will train; until the first offer the copy has its initial weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.loss: Tensor
        self.register_buffer("loss", torch.tensor(torch.inf, dtype=torch.float64))

    @torch.no_grad()
    def offer(self, network: nn.Module, loss: Tensor) -> None:
        """Takes the weights of `network` if their validation loss (a scalar) is below every earlier one."""
        if loss < self.loss:
            self.loss.copy_(loss)
            self.network.load_state_dict(network.state_dict())
