"""Independent bits with the means of the training data: a row that knows no structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage

from ..training_points import training_points


class IndependentBits(Model):
    """P(x_i = 1) = (n_i + a) / (N + 2 a), where n_i of the N training points have bit i, each bit on its own."""

    class Config(BaseConfig):
        smoothing: Annotated[float, Field(gt=0)]
        """Pseudo-count a of each value of a bit; 1 is Laplace's rule."""
        num_draws: Annotated[int, Field(ge=1)]
        """Training points that are drawn where the task's draws are unlimited."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.prob: Tensor
        self.register_buffer("prob", torch.full((space.dim,), 0.5, dtype=torch.float64))  # P(x_i = 1)

    def stages(self, data: Data) -> Sequence[Stage]:
        def count(rng: Generator) -> None:
            total, ones = 0, torch.zeros_like(self.prob)
            for x in training_points(data, self.config.num_draws, rng=rng):
                total += len(x)
                ones += x.sum(0, dtype=torch.float64).to(ones.device)
            self.prob.copy_((ones + self.config.smoothing) / (total + 2 * self.config.smoothing))

        return [Call("count", count)]

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        x = x.to(self.prob)
        return (x @ torch.logit(self.prob) + torch.log1p(-self.prob).sum()).float()

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D)."""
        u = torch.rand(num, len(self.prob), generator=rng, device=rng.device).to(self.prob.device)
        return (u < self.prob).to(torch.float32)
