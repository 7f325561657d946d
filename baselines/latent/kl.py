"""The divergence of a diagonal Gaussian posterior from the standard normal prior, and what its training needs."""

from __future__ import annotations

from torch import Tensor


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats of every latent, of the shape of `mean`.

    Source: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv 1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std


def log_ratio(z: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """log p(z) - log q(z | x) in nats, summed over the last axis, for z = mean + std * noise and p = N(0, I).

    Arguments:
        z: Latents (..., Z).
        noise: The standard normal draws of which they were made, (..., Z).
        log_std: The posterior's log standard deviations, broadcastable to (..., Z).
    """
    return (0.5 * (noise.square() - z.square()) + log_std).sum(-1)


def free_bits(kl: Tensor, floor: float) -> Tensor:
    """sum_j max(floor, E[KL_j]) in nats, a scalar: what takes the place of the KL term in the objective.

    A latent whose KL, averaged over the batch, lies below the floor costs the floor and has no gradient, so that
    nothing pushes it to carry less. A floor of zero gives the batch's mean KL.

    Arguments:
        kl: Nats of each example and latent, (B, Z).
        floor: lambda, nats a latent.

    Source: D. P. Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016,
    arXiv 1606.04934, section 3.3 and appendix C.8, with every latent a group of its own.
    """
    mean = kl.mean(0)
    return mean.clamp(min=floor).sum() if floor > 0 else mean.sum()
