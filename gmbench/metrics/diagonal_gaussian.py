"""Diagonal Gaussians over latents: their parameters, draws from an explicit generator, densities and divergence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.errors import MissingCapability
from gmbench.metrics.checks import check_finite

_LOG_2PI = math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """N(mean, diag(std²)) on latents (Z,), for any batch."""

    mean: Tensor
    """(..., Z)."""
    std: Tensor
    """(..., Z), positive."""

    def draw(self, num: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """`num` independent draws z = mean + std · noise and their log densities in nats, (num, ..., Z), (num, ...).

        The density comes from the noise, not from z: exact however small std is beside the mean.
        """
        shape = (num, *self.mean.shape)
        noise = torch.randn(shape, generator=rng, device=rng.device, dtype=self.mean.dtype).to(self.mean.device)
        z = torch.addcmul(self.mean, self.std, noise)
        constant = self.std.log().sum(-1) + _LOG_2PI / 2 * self.mean.shape[-1]  # (...)
        return z, -(noise.square().sum(-1) / 2 + constant)

    def kl_from(self, prior: DiagonalGaussian) -> Tensor:
        """KL(this ‖ prior) in nats, analytic, (...), float64."""
        m, s, m0, s0 = (part.double() for part in (*self, *prior))
        ratio = s / s0
        return ((((m - m0) / s0).square() + ratio.square() - 1) / 2 - ratio.log()).sum(-1)


def diagonal_gaussian(name: str, distribution: Distribution) -> DiagonalGaussian:
    """The parameters of a torch distribution that is a diagonal Gaussian with an event shape of (Z,).

    torch's own draws take no generator, so that draws are made here, for the one family that this module knows.

    Arguments:
        name: What to call the distribution in a message.
        distribution: `Independent(Normal(mean, std), 1)`.

    Raises:
        MissingCapability: It is of another family.
        ValueError: Its parameters are not finite.
    """
    if (
        not isinstance(distribution, Independent)
        or not isinstance(distribution.base_dist, Normal)
        or len(distribution.event_shape) != 1
    ):
        raise MissingCapability(f"{name} must be Independent(Normal(mean, std), 1), not {_describe(distribution)}")
    found = DiagonalGaussian(distribution.base_dist.loc, distribution.base_dist.scale)
    check_finite(f"the mean of {name}", found.mean)
    check_finite(f"the standard deviation of {name}", found.std)
    return found


def _describe(distribution: Distribution) -> str:
    family = type(distribution).__name__
    if isinstance(distribution, Independent):
        family = f"Independent({type(distribution.base_dist).__name__})"
    return f"{family} of event shape {tuple(distribution.event_shape)}"
