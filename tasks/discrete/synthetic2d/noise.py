"""Noise on one coordinate: Gaussian, or Gaussian plus uniform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """A symmetric distribution around zero on the line."""

    def pdf(self, z: Tensor) -> Tensor:
        """The density at z, any shape; underflows to zero far away."""
        ...

    def log_pdf(self, z: Tensor) -> Tensor:
        """Its logarithm at z, finite however far away."""
        ...


@dataclass(frozen=True)
class GaussianNoise:
    """N(0, sd^2)."""

    sd: float

    def pdf(self, z: Tensor) -> Tensor:
        return self.log_pdf(z).exp()

    def log_pdf(self, z: Tensor) -> Tensor:
        return -0.5 * (z / self.sd) ** 2 - math.log(self.sd * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class BoxGaussianNoise:
    """U(-width/2, width/2) + N(0, sd^2), whose density is a difference of two Normal cdfs over the width."""

    sd: float
    width: float

    def pdf(self, z: Tensor) -> Tensor:
        # With |z| both terms are upper tails, so that nothing cancels: full relative precision down to the underflow.
        distance, scale = z.abs(), self.sd * math.sqrt(2)
        near = torch.erfc((distance - self.width / 2) / scale)
        far = torch.erfc((distance + self.width / 2) / scale)
        return (near - far) / (2 * self.width)

    def log_pdf(self, z: Tensor) -> Tensor:
        distance = z.abs()
        near: Tensor = torch.special.log_ndtr((self.width / 2 - distance) / self.sd)
        far: Tensor = torch.special.log_ndtr((-self.width / 2 - distance) / self.sd)
        return near + torch.log1p(-(far - near).exp()) - math.log(self.width)
