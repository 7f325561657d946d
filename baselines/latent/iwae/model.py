"""The importance weighted autoencoder: a variational autoencoder trained by the bound of K weighted latents."""

from __future__ import annotations

from typing import Literal

from ..vae.model import VAE


class IWAE(VAE):
    """The model of `VAE`, trained on E log (1/K) sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x).

    The bound is the evidence lower bound for K = 1 and never falls as K grows. The gradient is that of the bound as
    it stands, by the reparameterised latents: draws enter with their normalised weights.

    Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", 2015, arXiv 1509.00519.
    """

    class Config(VAE.Config):
        bound: Literal["iwae"]
        """The importance weighted bound."""
