"""Mixtures of products of one-dimensional densities, which most of the toy densities are, or are the limit of."""

from __future__ import annotations

import torch
from torch import Tensor

from .density import Density
from .noise import Noise

_TINY = 1e-280  # below it a sum of densities has lost digits to underflow, and the sum is taken over logarithms
_CHUNK = 1024  # points at a time, so that (chunk, K) float64 arrays of some hundred components stay in cache


class ProductMixture(Density):
    """p(x, y) = sum_k w_k f(x - a_k) f(y - b_k), with one noise density f.

    A curve blurred by noise is the limit of such mixtures; a quadrature rule along the curve makes it one with an error
    that falls exponentially with the number of nodes. Because every component is a product, the density on a grid and
    the masses of boxes are single matrix products.

    Arguments:
        name: The density's name.
        centres: (K, 2) float64.
        weights: (K,) float64, non-negative, summing to 1 up to the error of the quadrature.
        noise: The density f.
    """

    panel = 0.1  # at most one standard deviation of the noise, where 8 nodes leave a relative error below 1e-10
    order = 8

    def __init__(self, name: str, centres: Tensor, weights: Tensor, noise: Noise) -> None:
        self.name = name
        self.centres = centres
        self.weights = weights / weights.sum()
        self.noise = noise

    def log_density(self, points: Tensor) -> Tensor:
        return torch.cat([self._log_density(chunk) for chunk in torch.split(points.double(), _CHUNK)])

    def _log_density(self, points: Tensor) -> Tensor:
        centres, weights = self.centres.to(points.device), self.weights.to(points.device)
        x = points[:, :1] - centres[:, 0]  # (N, K)
        y = points[:, 1:] - centres[:, 1]
        density = (self.noise.pdf(x) * self.noise.pdf(y)) @ weights
        result = density.log()
        far = density < _TINY
        if far.any():
            logs = self.noise.log_pdf(x[far]) + self.noise.log_pdf(y[far]) + weights.log()
            result[far] = logs.logsumexp(1)
        return result

    def grid_density(self, x: Tensor, y: Tensor) -> Tensor:
        along_x = self.noise.pdf(x[:, None] - self.centres[:, 0])  # (I, K)
        along_y = self.noise.pdf(y[:, None] - self.centres[:, 1])  # (J, K)
        return (along_x * self.weights) @ along_y.T
