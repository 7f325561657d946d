"""The pinwheel: five Gaussian arms twisted by an angle that grows exponentially with the radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .density import Density

_NUM_ARMS = 5
_RATE = 0.25
_RADIAL_SD = 0.3
_TANGENTIAL_SD = 0.1
_SCALE = 2.0
_NUM_INTERVALS = 128  # on them the twisted angle moves by less than one arm for all points within 8.5 of the origin
_NUM_NEWTON = 7
_CHUNK = 4096
_LOG_NORMALISER = -math.log(2 * math.pi * _RADIAL_SD * _TANGENTIAL_SD * _NUM_ARMS * _SCALE**2)


class Pinwheel(Density):
    """2 (r cos a + v sin a, -r sin a + v cos a), r ~ N(1, .3^2), v ~ N(0, .1^2), a = 2 pi k/5 + e^r/4, k one of five.

    The twist keeps the radius rho = |(r, v)|. With (r, v) = rho (cos phi, sin phi), a point at angle theta has one term
    for each root phi of phi - e^(rho cos phi)/4 = theta modulo 2 pi/5, and p is the sum over these roots of
    N(r) N(v) / |1 + v e^r/4| / (5 * 4). It is exact but for pairs of roots closer than 2 pi/128, which exist only
    where the twist folds the plane over itself, at five standard deviations of v or more; beyond 8.5 from the origin,
    outside of the square of the code, further minor terms can be missing.

    Source: FFJORD: Free-Form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2019,
    arXiv 1810.01367.
    """

    name = "pinwheel"
    panel = 0.05
    order = 2

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        normal = torch.randn(num, 2, generator=rng, device=rng.device, dtype=torch.float64)
        arm = torch.randint(_NUM_ARMS, (num,), generator=rng, device=rng.device)
        r, v = 1 + _RADIAL_SD * normal[:, 0], _TANGENTIAL_SD * normal[:, 1]
        a = 2 * math.pi / _NUM_ARMS * arm + _RATE * r.exp()
        return _SCALE * torch.stack([r * a.cos() + v * a.sin(), -r * a.sin() + v * a.cos()], 1)

    def log_density(self, points: Tensor) -> Tensor:
        return torch.cat([_log_density(chunk / _SCALE) for chunk in torch.split(points.double(), _CHUNK)])


def _log_density(points: Tensor) -> Tensor:
    """Log density of the doubled points at points (N, 2) before doubling: (N,)."""
    spacing = 2 * math.pi / _NUM_ARMS
    rho = points.norm(dim=1)
    theta = torch.atan2(points[:, 1], points[:, 0])
    phi = torch.linspace(-math.pi, math.pi, _NUM_INTERVALS + 1, dtype=points.dtype, device=points.device)
    # How many arms the twisted angle has passed: a root lies where this number changes. (N, intervals + 1)
    passed = (((phi - theta[:, None]) - _RATE * (rho[:, None] * phi.cos()).exp()) / spacing).floor()
    row, interval = (passed[:, 1:] != passed[:, :-1]).nonzero(as_tuple=True)  # (R,)
    target = theta[row] + spacing * torch.maximum(passed[row, interval], passed[row, interval + 1])
    root = _solve(rho[row], target, phi[interval], phi[interval + 1])

    r, v = rho[row] * root.cos(), rho[row] * root.sin()
    jacobian = (1 + _RATE * r.exp() * v).abs().clamp(min=1e-12)
    terms = -0.5 * ((r - 1) / _RADIAL_SD) ** 2 - 0.5 * (v / _TANGENTIAL_SD) ** 2 - jacobian.log()
    largest = torch.full_like(rho, -math.inf).scatter_reduce(0, row, terms, "amax")
    total = torch.zeros_like(rho).index_add(0, row, (terms - largest[row]).exp())
    return largest + total.log() + _LOG_NORMALISER


def _solve(rho: Tensor, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The root phi in [low, high] of phi - e^(rho cos phi)/4 = target, by Newton's method kept inside a bracket."""
    twist = _RATE * (rho * low.cos()).exp()
    rising = low - twist < target
    phi = (low + high) / 2
    for _ in range(_NUM_NEWTON):
        twist = _RATE * (rho * phi.cos()).exp()
        error = phi - twist - target
        left = (error < 0) == rising
        low, high = torch.where(left, phi, low), torch.where(left, high, phi)
        newton = phi - error / (1 + twist * rho * phi.sin())
        phi = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
    return phi
