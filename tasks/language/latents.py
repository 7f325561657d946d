"""What latents know of their sentences, as all tasks of token sequences report it."""

from __future__ import annotations

from torch import Generator
from torch.distributions import Distribution

from gmbench.estimate import Estimate
from gmbench.metrics.latent_information import active_units, kl
from gmbench.metrics.mutual_information import mutual_information


def latents(posterior: Distribution, prior: Distribution, *, threshold: float, rng: Generator) -> dict[str, Estimate]:
    """KL, mutual information between its limits, and active units, by key.

    Arguments:
        posterior: q(z | x) of N sentences: a diagonal Gaussian, as the prior.
        threshold: Of the active units, in the latents' unit squared.
        rng: Draws a latent a sentence.
    """
    between, num = mutual_information(posterior, rng=rng), posterior.batch_shape[0]
    log_n = Estimate(value=between.log_n, kind="exact", note="what the lower bound cannot exceed")
    note = "1: the lower bound is within 1 nat of log N, and cannot tell"
    return {
        f"kl.n{num}": kl(posterior, prior),
        f"mutual_information.lower.n{num}": between.lower,
        f"mutual_information.upper.n{num}": between.upper,
        f"mutual_information.log_n.n{num}": log_n,
        f"mutual_information.saturated.n{num}": Estimate(value=float(between.saturated), kind="exact", note=note),
        f"active_units.above{threshold}.n{num}": active_units(posterior.mean, threshold=threshold),
    }
