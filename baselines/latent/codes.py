"""An ex-post density of codes: a Gaussian fitted to the codes of training points, from which new codes are drawn."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from .bits import normals


class CodeDensity(nn.Module):
    """N(mean, scale scale') with a full covariance, fitted by moments.

    It makes a sampler of an autoencoder that has no prior; it is no part of what the autoencoder was trained for.

    Arguments:
        dim: Numbers Z in a code.

    Source: P. Ghosh, M. S. M. Sajjadi, A. Vergari, M. Black, B. Schölkopf, "From Variational to Deterministic
    Autoencoders", 2020, arXiv 1903.12436.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.eye(dim))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Takes mean and covariance from codes (N, Z), N at least 2; directions without variance stay without."""
        codes = codes.double()
        values, vectors = torch.linalg.eigh(codes.T.cov().reshape(codes.shape[1], -1))
        self.mean.copy_(codes.mean(0))
        self.scale.copy_(vectors * values.clamp(min=0).sqrt())

    def sample(self, num: int, rng: Generator) -> Tensor:
        """`num` independent codes (num, Z)."""
        return self.mean + normals((num, len(self.mean)), self.mean, rng) @ self.scale.T
