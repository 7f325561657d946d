"""The memoriser: training points, given back as samples. What a measure of sample quality must not reward alone."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step


class Memoriser(Model):
    """Keeps draws of the training data and samples them with replacement."""

    class Config(BaseConfig):
        num_points: int = Field(ge=1)
        """Training draws that are kept."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.points: Tensor
        self.register_buffer("points", torch.zeros(config.num_points, space.dim, dtype=torch.bool))

    def stages(self, data: Data) -> list[Stage]:
        return [Gradient("keep", 1, self.config.num_points, {}, self._keep)]

    def _keep(self, batch: Tensor, step: Step) -> None:
        self.points.copy_(batch > 0.5)

    def sample(self, num: int, *, given: Any = None, rng: torch.Generator) -> Tensor:
        """`num` kept points (num, D), drawn with replacement."""
        rows = torch.randint(len(self.points), (num,), generator=rng, device=rng.device)
        return self.points[rows].float()
