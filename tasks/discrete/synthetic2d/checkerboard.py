"""The checkerboard: uniform on eight squares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .density import Density


class Checkerboard(Density):
    """Uniform on the eight squares of side 2, of the sixteen that fill |x|, |y| < 4, whose column + row is even.

    Masses of boxes and cells are exact areas: cells of a code straddle the sharp edges, where the midpoint rule fails.

    Source: FFJORD: Free-Form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2019,
    arXiv 1810.01367.
    """

    name = "checkerboard"
    panel = math.inf
    order = 1

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        uniform = torch.rand(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        low_row = torch.randint(2, (num,), generator=rng, device=rng.device)
        x = 4 * uniform[:, 0] - 2
        y = uniform[:, 1] - 2 * low_row + x.floor().remainder(2)
        return 2 * torch.stack([x, y], 1)

    def log_density(self, points: Tensor) -> Tensor:
        points = points.double()
        inside = ((points >= -4) & (points < 4)).all(1)
        on = (points / 2).floor().sum(1).remainder(2) == 0
        return (inside & on).double().log() - math.log(32)

    def log_cell_mass(self, centres: Tensor, side: float) -> Tensor:
        low, high = centres.double() - side / 2, centres.double() + side / 2
        x = _overlaps(low[:, 0], high[:, 0])  # (N, 4)
        y = _overlaps(low[:, 1], high[:, 1])
        return torch.einsum("nc,nr,cr->n", x, y, _board(x)).log() - math.log(32)

    def box_masses(self, x_edges: Tensor, y_edges: Tensor) -> Tensor:
        x = _overlaps(x_edges[:-1], x_edges[1:])
        y = _overlaps(y_edges[:-1], y_edges[1:])
        return x @ _board(x) @ y.T / 32

    def entropy(self, half_width: float) -> float:
        """Exactly ln 32 on every square that holds the board."""
        if half_width < 4:
            raise ValueError(f"the board reaches to 4, beyond a half width of {half_width}")
        return math.log(32)


def _overlaps(low: Tensor, high: Tensor) -> Tensor:
    """Lengths of the intersections of intervals (N,) with the four columns (or rows) of the board: (N, 4)."""
    left = torch.tensor([-4.0, -2.0, 0.0, 2.0], dtype=torch.float64, device=low.device)
    return (torch.minimum(high[:, None], left + 2) - torch.maximum(low[:, None], left)).clamp(min=0)


def _board(like: Tensor) -> Tensor:
    """1 where the density is positive: (4 columns, 4 rows)."""
    index = torch.arange(4, device=like.device)
    return ((index[:, None] + index) % 2 == 0).to(like)
