"""Independent tokens with their frequencies in the training data: a row that knows no order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenSequence
from gmbench.training import Call, Stage

from ...tokens import PAD, finished, require_no_condition


class Unigram(Model):
    """p(x_t = w) = (n_w + a) / (N + a (V - 1)) at every position, the end's token included and padding left out."""

    class Config(BaseConfig):
        smoothing: Annotated[float, Field(gt=0)]
        """Pseudo-count a of each token; 1 is Laplace's rule."""

    likelihood = Likelihood()
    space: TokenSequence

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        self.prob: Tensor
        prob = torch.full((space.vocab_size,), 1 / (space.vocab_size - 1), dtype=torch.float64)
        prob[PAD] = 0
        self.register_buffer("prob", prob)

    def stages(self, data: Data) -> Sequence[Stage]:
        def count(rng: Generator) -> None:
            counts = data.fixed.flatten().bincount(minlength=self.space.vocab_size).to(self.prob)
            counts += self.config.smoothing
            counts[PAD] = 0
            self.prob.copy_(counts / counts.sum())

        return [Call("count", count)]

    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t) in nats of x (B, T), exact, (B, T); 0 where x is padding."""
        return torch.where(x == PAD, 0.0, self.prob.log()[x]).float()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, T), exact, (B,)."""
        return torch.where(x == PAD, 0.0, self.prob.log()[x]).sum(1).float()

    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T).

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        size = num * self.space.max_length
        x = torch.multinomial(self.prob.to(rng.device), size, replacement=True, generator=rng)
        x = x.reshape(num, self.space.max_length).to(self.prob.device)
        return finished(x) if self.space.ends else x
