"""Eight Gaussians on a circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .noise import GaussianNoise
from .product_mixture import ProductMixture

RADIUS = 4 / 1.414  # the published generator divides by 1.414, not by the root of 2
SD = 0.5 / 1.414


class EightGaussians(ProductMixture):
    """Equal Gaussians of standard deviation .5/1.414 at multiples of 45 degrees on the circle of radius 4/1.414.

    Source: FFJORD: Free-Form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2019,
    arXiv 1810.01367.
    """

    def __init__(self) -> None:
        angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        centres = RADIUS * torch.stack([angles.cos(), angles.sin()], 1)
        super().__init__("8gaussians", centres, torch.full((8,), 1 / 8, dtype=torch.float64), GaussianNoise(SD))

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        component = torch.randint(8, (num,), generator=rng, device=rng.device)
        noise = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        return self.centres.to(rng.device)[component] + SD * noise
