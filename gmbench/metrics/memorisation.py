"""Whether a model repeats its training set: how near its samples are to it, against how near held-out points are.

Whatever asks only that samples look like data is won by a model that returns its training points; this it loses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_binary, check_count, check_finite, check_shape

_BLOCK = 1024


@dataclass(frozen=True)
class Nearest:
    """The nearest reference point of every point."""

    distance: Tensor
    """(N,)."""
    index: Tensor
    """Which reference point that is, int64 (N,)."""


@torch.no_grad()
def nearest_by_hamming(points: Tensor, reference: Tensor) -> Nearest:
    """The nearest reference point of every point by the number of bits that differ.

    A reference point may also be a vector of probabilities: the distance is then the expected one to its draws.

    Arguments:
        points: Bits, (N, D).
        reference: Bits, or probabilities of bits, (M, D).
    """
    check_shape("points", points, ("N", "D"))
    check_shape("reference", reference, ("M", points.shape[1]))
    check_binary("points", points)
    if bool((reference < 0).any()) or bool((reference > 1).any()):
        raise ValueError("reference must hold bits, or probabilities between 0 and 1")
    check_finite("reference", reference)
    # Σ |x - p| = Σ p + Σ x (1 - 2p) for bits x: one matrix product, exact in float32 where p are bits.
    slope, offset = (1 - 2 * reference).T, reference.sum(1)
    blocks = torch.split(points.to(reference.dtype), _BLOCK)
    found = [(offset + block @ slope).min(1) for block in blocks]
    return Nearest(torch.cat([one.values for one in found]), torch.cat([one.indices for one in found]))


@torch.no_grad()
def nn_ratio(generated: Tensor, held_out: Tensor, *, num_bootstraps: int, rng: torch.Generator) -> Estimate:
    """Median distance from generated points to their nearest training points, over that from held-out points.

    0: most samples are training points; 1: they are as far from the training set as new data are; above 1: farther.
    The standard error is that of the bootstrap over both sets of points, the training set held fixed. Distances that
    count bits have few values, and the error of their median is 0 where no resampling moves it.

    Arguments:
        generated: Distance of every generated point to its nearest training point, (N,).
        held_out: Distance of every held-out point to its nearest training point, (M,); their median is above 0.
        num_bootstraps: Resamplings, at least 2.
        rng: Draws them.
    """
    for name, distances in (("generated", generated), ("held_out", held_out)):
        check_shape(name, distances, ("N",))
        check_finite(name, distances)
    check_count("num_bootstraps", num_bootstraps, least=2)
    above, below = float(_median(generated)), float(_median(held_out))
    if below <= 0:
        raise ValueError("most held-out points are training points: the ratio of nearest distances says nothing")
    sd_above, sd_below = (_sd_of_median(distances, num_bootstraps, rng) for distances in (generated, held_out))
    return Estimate(
        value=above / below,
        stderr=math.hypot(sd_above / below, above * sd_below / below**2),
        n=min(len(generated), len(held_out)),
        kind="consistent",
        note="bootstrap over points; the training set is held fixed",
    )


def _median(values: Tensor) -> Tensor:
    """Along the last axis; of an even number of values the mean of the middle two, which torch.median does not give."""
    ordered, num = values.double().sort(-1).values, values.shape[-1]
    return (ordered[..., (num - 1) // 2] + ordered[..., num // 2]) / 2


def _sd_of_median(values: Tensor, num_bootstraps: int, rng: torch.Generator) -> float:
    rows = torch.randint(len(values), (num_bootstraps, len(values)), generator=rng, device=rng.device)
    return float(_median(values.to(rng.device)[rows]).std())
