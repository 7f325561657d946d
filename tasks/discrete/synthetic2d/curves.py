"""Four curves blurred by noise: spirals, circles, moons and the Swiss roll of the FFJORD toy set.

Source: FFJORD: Free-Form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2019,
arXiv 1810.01367; circles, moons and the Swiss roll come from scikit-learn, with its formulas. Where scikit-learn spaces
the angles evenly within one call, here every point draws its own: points are independent.

Each density is a one-dimensional integral over the curve's parameter, taken by a fixed quadrature rule whose nodes
become the components of a mixture; the numbers of nodes keep the error of log p below 1e-9 nats near the data.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .noise import BoxGaussianNoise, GaussianNoise
from .product_mixture import ProductMixture
from .quadrature import gauss_legendre


class TwoSpirals(ProductMixture):
    """Two mirrored arms +-((-n cos n, n sin n) + .5 (u', u''))/3 + N(0, .1^2 I), with n = 3 pi sqrt(u).

    The uniform boxes are mirrored with their arm: around the box's middle the noise of both is symmetric.
    """

    sd = 0.1
    width = 0.5 / 3

    def __init__(self) -> None:
        # The curve is smooth in sqrt(u), and of nearly constant speed in u: each variable where it is the better one.
        root, root_weights = gauss_legendre(0.0, 0.3, 48)
        rest, rest_weights = gauss_legendre(0.3**2, 1.0, 256)
        weights = torch.cat([2 * root * root_weights, rest_weights])
        arm = self._middle(torch.cat([root**2, rest]))
        noise = BoxGaussianNoise(self.sd, self.width)
        super().__init__("2spirals", torch.cat([arm, -arm]), weights.repeat(2) / 2, noise)

    def _middle(self, u: Tensor) -> Tensor:
        n = 3 * math.pi * u.sqrt()
        return torch.stack([-n * n.cos(), n * n.sin()], 1) / 3 + self.width / 2

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        uniform = torch.rand(num, 3, generator=rng, device=rng.device, dtype=torch.float64)
        arm = 2 * torch.randint(2, (num, 1), generator=rng, device=rng.device) - 1
        noise = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        box = self.width * (uniform[:, 1:] - 0.5)
        return arm * (self._middle(uniform[:, 0]) + box) + self.sd * noise


class Circles(ProductMixture):
    """Circles of radius 3 and 1.5, half of the points each, uniform angle, noise N(0, .24^2 I)."""

    sd = 0.24
    radii = (3.0, 1.5)
    num_nodes = 160  # on a circle the trapezoid rule converges exponentially

    def __init__(self) -> None:
        angles = torch.arange(self.num_nodes, dtype=torch.float64) * (2 * math.pi / self.num_nodes)
        unit = torch.stack([angles.cos(), angles.sin()], 1)
        centres = torch.cat([radius * unit for radius in self.radii])
        weights = torch.full((len(centres),), 1 / len(centres), dtype=torch.float64)
        super().__init__("circles", centres, weights, GaussianNoise(self.sd))

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        angle = 2 * math.pi * torch.rand(num, generator=rng, device=rng.device, dtype=torch.float64)
        radii = torch.tensor(self.radii, dtype=torch.float64, device=rng.device)
        radius = radii[torch.randint(2, (num,), generator=rng, device=rng.device)]
        noise = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + self.sd * noise


class Moons(ProductMixture):
    """Half circles (cos t, sin t) and (1 - cos t, .5 - sin t) with noise .1, doubled and moved by (-1, -.2)."""

    sd = 0.2

    def __init__(self) -> None:
        angles, weights = gauss_legendre(0.0, math.pi, 160)
        first = torch.zeros(len(angles), dtype=torch.bool)
        centres = torch.cat([self._arc(angles, first), self._arc(angles, ~first)])
        super().__init__("moons", centres, weights.repeat(2), GaussianNoise(self.sd))

    @staticmethod
    def _arc(t: Tensor, inner: Tensor) -> Tensor:
        x = torch.where(inner, 1 - t.cos(), t.cos())
        y = torch.where(inner, 0.5 - t.sin(), t.sin())
        return torch.stack([2 * x - 1, 2 * y - 0.2], 1)

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        angle = math.pi * torch.rand(num, generator=rng, device=rng.device, dtype=torch.float64)
        inner = torch.randint(2, (num,), generator=rng, device=rng.device).bool()
        noise = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        return self._arc(angle, inner) + self.sd * noise


class SwissRoll(ProductMixture):
    """The spiral (t cos t, t sin t), t uniform on [1.5 pi, 4.5 pi], with noise 1, all divided by 5."""

    sd = 0.2
    span = (1.5 * math.pi, 4.5 * math.pi)

    def __init__(self) -> None:
        t, weights = gauss_legendre(*self.span, 384)
        super().__init__("swissroll", self._roll(t), weights, GaussianNoise(self.sd))

    @staticmethod
    def _roll(t: Tensor) -> Tensor:
        return torch.stack([t * t.cos(), t * t.sin()], 1) / 5

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        low, high = self.span
        t = low + (high - low) * torch.rand(num, generator=rng, device=rng.device, dtype=torch.float64)
        noise = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        return self._roll(t) + self.sd * noise
