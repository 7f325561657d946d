"""Independent bits fitted by gradient: two stages, two optimizers, a buffer, and randomness of every kind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Gradient, Stage, Step, cosine


class CoinModel(Model):
    """p(x) = prod_i Bernoulli(x_i; sigmoid(logits_i)), with a running mean of the data as a buffer."""

    class Config(BaseConfig):
        num_steps: int = Field(ge=1)
        """Steps of each of the two gradient stages."""
        batch_size: int = Field(ge=1)
        """Points a step."""
        learning_rate: float = Field(gt=0)
        """Learning rate of both optimizers."""
        momentum: float = Field(ge=0, lt=1)
        """Of the optimizer of the first stage."""
        noise: float = Field(ge=0)
        """Scale of the noise on the logits, half of it from the global generator as dropout would."""
        seconds_a_step: float = Field(ge=0)
        """Sleep in every step, so that a test can kill it."""
        nan_at_step: int
        """The step of the first stage whose loss is NaN; -1 for none."""

    likelihood = Likelihood()

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.logits = nn.Parameter(0.1 * torch.randn(space.dim))
        self.register_buffer("running_mean", torch.full((space.dim,), 0.5))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        momentum = torch.optim.SGD([self.logits], lr=c.learning_rate, momentum=c.momentum)
        adam = torch.optim.Adam([self.logits], lr=c.learning_rate)
        return [
            Gradient("rough", c.num_steps, c.batch_size, {"main": momentum}, self.training_step),
            Call("jitter", self.jitter),
            Gradient("fine", c.num_steps, c.batch_size, {"main": adam}, self.training_step, schedule=cosine),
        ]

    def training_step(self, batch: Tensor, step: Step) -> None:
        if self.config.seconds_a_step:
            time.sleep(self.config.seconds_a_step)
        own = torch.randn(len(self.logits), generator=step.rng)
        logits = self.logits + self.config.noise * (own + torch.randn(len(self.logits)))
        loss = nn.functional.binary_cross_entropy_with_logits(logits.expand_as(batch), batch)
        if step.index == self.config.nan_at_step:
            loss = loss * float("nan")
        step.minimize(loss)
        self.running_mean.lerp_(batch.mean(0), 0.05)

    def jitter(self, rng: Generator) -> None:
        with torch.no_grad():
            self.logits += 0.01 * torch.randn(len(self.logits), generator=rng)

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        return (torch.rand(num, len(self.logits), generator=rng) < self.logits.sigmoid()).float()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        return -nn.functional.binary_cross_entropy_with_logits(
            self.logits.expand_as(x), x, reduction="none"
        ).sum(-1)

    def energy(self, x: Tensor) -> Tensor:
        return -(x @ self.logits)
