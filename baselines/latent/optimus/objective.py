"""What Optimus is trained on besides the likelihood: the weight of the KL term, and latents that cost nothing."""

from __future__ import annotations

from torch import Tensor

from ..schedules import Annealing


def beta(fraction: float, annealing: Annealing, *, num_cycles: int, zero: float, ramp: float) -> float:
    """The weight of the KL term, in [0, 1].

    In every cycle it is 0, then rises linearly to 1 and stays there: `cyclical` makes `num_cycles` cycles of equal
    length, `monotone` one, `none` is the constant 1. One cycle with zero = 1/2 and ramp = 1/4 is that of Optimus.

    Arguments:
        fraction: The fraction of training that is done, in [0, 1).
        zero: The share of a cycle in which the weight is 0, in [0, 1).
        ramp: The share of a cycle in which it rises, in (0, 1 - zero].

    Source: C. Li et al., 2020, arXiv 2004.04092, section 4.1, and the published code (`ratio_zero`, `ratio_increase`).
    """
    if annealing == "none":
        return 1.0
    position = fraction * num_cycles % 1 if annealing == "cyclical" else fraction
    return min(1.0, max(0.0, position - zero) / ramp)


def thresholded(kl: Tensor, threshold: float) -> Tensor:
    """The mean over examples of sum_j KL_j · 1[KL_j > threshold] in nats, a scalar.

    A latent whose KL of an example is not above the threshold costs nothing there and has no gradient: that of
    max(threshold, KL_j), whose value is the threshold there. The decision is made for each example, as in the published
    code, not for a batch's mean, as with `..kl.free_bits`.

    Arguments:
        kl: Nats of each example and latent, (B, Z).
        threshold: lambda, nats a latent; 0 gives the mean KL, which is never negative.

    Source: C. Li et al., 2020, arXiv 2004.04092, section 4.1 and the published code (`dim_target_kl`, `fb_mode` 1).
    """
    return (kl * (kl > threshold)).sum(1).mean() if threshold > 0 else kl.sum(1).mean()
