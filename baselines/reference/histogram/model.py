"""A histogram of points in the plane, on the cells that the leading bits of both coordinates name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage

from ..training_points import training_points


class Histogram(Model):
    """Cell frequencies with additive smoothing, uniform within a cell; the cells' size is chosen on validation data.

    A coordinate's bits run from the sign and the most significant down, so that its first b bits name one of 2^b
    intervals: that holds for a Gray code as for the binary one. The histogram on 2^b x 2^b cells is stored on the
    finest grid among the candidates.
    """

    class Config(BaseConfig):
        bits_per_axis: tuple[int, ...]
        """Candidates for the number of leading bits (with the sign) of a coordinate; what it lacks is skipped."""
        smoothing: Annotated[float, Field(gt=0)]
        """Pseudo-count of every cell."""
        num_draws: Annotated[int, Field(ge=1)]
        """Training points that are drawn where the task's draws are unlimited."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        if len(space.layout) != 2 or space.layout[0] != 2:
            raise UserError(f"a histogram needs a plane: a layout (2, bits), and the space has {space.layout}")
        self.length = space.layout[1]  # bits of one coordinate
        self.candidates = sorted(b for b in config.bits_per_axis if 1 <= b <= self.length)
        if not self.candidates or self.candidates[-1] > 12:
            raise UserError(f"bits_per_axis is {config.bits_per_axis}: 1 to {min(12, self.length)} are possible")
        self.finest = self.candidates[-1]
        num_cells = 4**self.finest
        self.log_mass: Tensor
        self.bits: Tensor
        # log probability of each cell of the finest grid, x's bits before y's
        self.register_buffer("log_mass", torch.full((num_cells,), -math.log(num_cells), dtype=torch.float64))
        self.register_buffer("bits", torch.tensor(0))  # the choice, for the reader

    def stages(self, data: Data) -> Sequence[Stage]:
        def count(rng: Generator) -> None:
            counts = torch.zeros_like(self.log_mass)
            for x in training_points(data, self.config.num_draws, rng=rng):
                counts += torch.bincount(self.cell(x.to(counts.device)), minlength=len(counts))
            cells = self.cell(data.validation.to(counts.device))
            tables = {b: self._smooth(counts, b) for b in self.candidates}
            best = max(self.candidates, key=lambda b: float(tables[b][cells].mean()))
            self.bits.fill_(best)
            self.log_mass.copy_(tables[best])

        return [Call("count", count)]

    def cell(self, x: Tensor) -> Tensor:
        """The number of the finest cell in which each x (B, D) lies, int64 (B,)."""
        leading = x.reshape(len(x), 2, self.length)[:, :, : self.finest].flatten(1)  # (B, 2 finest)
        powers = 2 ** torch.arange(2 * self.finest - 1, -1, -1, device=x.device)
        return (leading.to(torch.int64) * powers).sum(1)

    def _smooth(self, counts: Tensor, bits: int) -> Tensor:
        """log probabilities of the finest cells from counts that are pooled over 2^bits x 2^bits cells."""
        coarse, fine = 2**bits, 2 ** (self.finest - bits)
        pooled = counts.reshape(coarse, fine, coarse, fine).sum((1, 3))
        a = self.config.smoothing
        log_mass = torch.log((pooled + a) / (counts.sum() + a * coarse**2)) - 2 * math.log(fine)
        return log_mass[:, None, :, None].expand(coarse, fine, coarse, fine).flatten()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        return (self.log_mass[self.cell(x)] - 2 * (self.length - self.finest) * math.log(2.0)).float()

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D)."""
        device = self.log_mass.device
        cdf = self.log_mass.exp().cumsum(0)
        u = torch.rand(num, dtype=torch.float64, generator=rng, device=rng.device).to(device)
        cells = torch.searchsorted(cdf, u * cdf[-1], right=True).clamp_(max=len(cdf) - 1)
        x = torch.randint(2, (num, 2, self.length), generator=rng, device=rng.device).to(device, torch.float32)
        shifts = torch.arange(2 * self.finest - 1, -1, -1, device=device)
        x[:, :, : self.finest] = (cells[:, None] >> shifts & 1).reshape(num, 2, self.finest).to(torch.float32)
        return x.flatten(1)
