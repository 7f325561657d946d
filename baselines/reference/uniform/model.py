"""The uniform distribution: a row that knows nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Stage


class Uniform(Model):
    """Independent fair bits, whatever the data: D ln 2 nats a point."""

    likelihood = Likelihood()
    space: BinaryVector

    def stages(self, data: Data) -> Sequence[Stage]:
        return []

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """-D ln 2 for every x (B, D): (B,)."""
        return torch.full((len(x),), -self.space.dim * math.log(2.0), device=x.device)

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D), on the device of the generator."""
        return torch.randint(2, (num, self.space.dim), generator=rng, device=rng.device).to(torch.float32)
