"""Aggressive updates of the encoder: before every step of the decoder the encoder catches up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Aggressive(nn.Module):
    """Whose turn it is: the encoder's until its loss stops falling, then one step of the decoder, and so on.

    The loss is averaged over windows of steps; a window that is no better than the one before ends the encoder's turn.
    All of it ends once the mutual information of validation points and their latents has fallen below its best; from
    then on both are updated at every step. The state is in buffers, so that a checkpoint holds it.

    Arguments:
        most: Steps of one turn of the encoder, at most; 0 for no such turns at all.
        window: Steps of a window.

    Source: J. He, D. Spokoyny, G. Neubig, T. Berg-Kirkpatrick, "Lagging Inference Networks and Posterior Collapse in
    Variational Autoencoders", 2019, arXiv 1901.05534, algorithm 1 (most = 100; the windows are the published code's).
    """

    def __init__(self, most: int, window: int) -> None:
        super().__init__()
        self.most, self.window = most, window
        self.active: Tensor
        self.of_decoder: Tensor
        self.num_taken: Tensor
        self.total: Tensor
        self.previous: Tensor
        self.information: Tensor
        self.register_buffer("active", torch.tensor(most > 0))
        self.register_buffer("of_decoder", torch.tensor(False))
        self.register_buffer("num_taken", torch.tensor(0))  # steps of this turn of the encoder
        self.register_buffer("total", torch.tensor(0.0, dtype=torch.float64))  # of the losses in the window
        self.register_buffer("previous", torch.tensor(torch.inf, dtype=torch.float64))  # the last window's mean
        self.register_buffer("information", torch.tensor(-torch.inf, dtype=torch.float64))  # the best so far

    @property
    def going_on(self) -> bool:
        """Whether turns are taken."""
        return self.most > 0 and bool(self.active)

    def resting(self, encoder: nn.Module, decoder: nn.Module) -> nn.Module | None:
        """The network that this step leaves as it is, if any."""
        if not self.going_on:
            return None
        return encoder if bool(self.of_decoder) else decoder

    def stepped(self, loss: Tensor) -> None:
        """Takes note of the step that was made, and of its loss, a scalar."""
        if not self.going_on:
            return
        if bool(self.of_decoder):
            self.of_decoder.fill_(False)
            self._begin()
            return
        self.num_taken += 1
        self.total += loss.detach()
        if int(self.num_taken) % self.window == 0:
            mean = self.total / self.window
            self.of_decoder.fill_(bool(mean >= self.previous))
            self.previous.copy_(mean)
            self.total.zero_()
        if int(self.num_taken) >= self.most:
            self.of_decoder.fill_(True)

    def looked(self, information: float) -> None:
        """Takes note of the mutual information on validation points, in nats: once it has fallen, turns end."""
        if information < float(self.information):
            self.active.fill_(False)
        else:
            self.information.fill_(information)

    def _begin(self) -> None:
        self.num_taken.zero_()
        self.total.zero_()
        self.previous.fill_(torch.inf)


@contextmanager
def at_rest(part: nn.Module | None) -> Iterator[None]:
    """Within, the part gets no gradients, and an optimizer passes its parameters over."""
    parameters = [] if part is None else list(part.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
