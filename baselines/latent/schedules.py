"""What changes over training as a function of its fraction: the weight of the KL term, and a learning rate."""

from __future__ import annotations

from typing import Literal

Annealing = Literal["none", "monotone", "cyclical"]

NUM_PHASES = 8


def kl_weight(fraction: float, annealing: Annealing, *, num_cycles: int, ramp: float) -> float:
    """The weight of the KL term, in [0, 1].

    In every cycle it rises linearly from 0 to 1 and stays there: `cyclical` makes `num_cycles` cycles of equal
    length, `monotone` one, `none` is the constant 1.

    Arguments:
        fraction: The fraction of training that is done, in [0, 1).
        num_cycles: M of the paper.
        ramp: R of the paper: the share of a cycle in which the weight rises, in (0, 1].

    Source: H. Fu, C. Li, X. Liu, J. Gao, A. Celikyilmaz, L. Carin, "Cyclical Annealing Schedule: A Simple Approach to
    Mitigating KL Vanishing", 2019, arXiv 1903.10145, equations 6 and 7.
    """
    if annealing == "none":
        return 1.0
    position = fraction * num_cycles % 1 if annealing == "cyclical" else fraction
    return min(1.0, position / ramp)


def eight_phases(fraction: float) -> float:
    """The factor 10^(-i/7) on a learning rate in phase i = 0 .. 7, each three times as long as the one before.

    Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", 2015, arXiv 1509.00519, whose
    phase i takes 3^i of 3280 passes over the training set.
    """
    num_passes = (3**NUM_PHASES - 1) / 2
    ends = ((3 ** (i + 1) - 1) / 2 / num_passes for i in range(NUM_PHASES - 1))
    phase = sum(fraction >= end for end in ends)
    return float(10 ** (-phase / (NUM_PHASES - 1)))
