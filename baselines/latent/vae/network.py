"""The two networks of a variational autoencoder on bits, and the two bounds by which they train."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmbench.spaces import BinaryVector

from .. import bits
from ..kl import free_bits, gaussian_kl, log_ratio
from ..networks import NetworkConfig, build_decoder, build_encoder


class VariationalPair(nn.Module):
    """q(z | x) = N(mean(x), std(x)^2) of the encoder and p(x | z) = prod_i Bernoulli(x_i) of the decoder."""

    def __init__(self, config: NetworkConfig, space: BinaryVector) -> None:
        super().__init__()
        self.encoder = build_encoder(config, space, 2 * config.latent_dim)
        self.decoder = build_decoder(config, space)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), (B, Z) each, of bits x (B, D)."""
        mean, log_std = self.encoder(x).chunk(2, -1)
        return mean, log_std

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B) of bits x (B, D) and latents z (K, B, Z)."""
        logits = self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return bits.log_prob(logits, x)

    def elbo(self, x: Tensor, noise: Tensor, *, kl_weight: float = 1.0, floor: float = 0.0) -> Tensor:
        """The evidence lower bound in nats, averaged over the batch: E_q[log p(x | z)] - KL(q(z | x) || p(z)).

        The KL term is analytic.

        Arguments:
            x: Bits (B, D).
            noise: Standard normal draws (K, B, Z), one for each of the K latents over which E_q is averaged.
            kl_weight: The weight of the KL term; the bound has 1.
            floor: Free bits, nats a latent; the bound has 0.
        """
        mean, log_std = self.posterior(x)
        z = mean + log_std.exp() * noise
        kl = free_bits(gaussian_kl(mean, log_std), floor)
        return self.log_likelihood(x, z).mean() - kl_weight * kl

    def log_weights(self, x: Tensor, noise: Tensor, *, kl_weight: float = 1.0) -> Tensor:
        """log p(x | z) + kl_weight * (log p(z) - log q(z | x)) in nats, (K, B); arguments as for `elbo`."""
        mean, log_std = self.posterior(x)
        z = mean + log_std.exp() * noise
        ratio = log_ratio(z, noise, log_std)
        return self.log_likelihood(x, z) + kl_weight * ratio

    def importance_bound(self, x: Tensor, noise: Tensor, *, kl_weight: float = 1.0) -> Tensor:
        """The importance weighted bound in nats, averaged over the batch: log (1/K) sum_k p(x, z_k) / q(z_k | x)."""
        log_weights = self.log_weights(x, noise, kl_weight=kl_weight)
        return torch.logsumexp(log_weights, 0).mean() - math.log(len(noise))
