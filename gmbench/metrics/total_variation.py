"""Total variation between samples sorted into cells and the exact masses of the cells, with its finite-sample null."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_count, check_probs, check_shape


def exact_total_variation(p: Tensor, q: Tensor) -> Estimate:
    """½ Σ |p - q| of two probability vectors (C,), between 0 and 1."""
    check_probs("p", p)
    check_probs("q", q)
    check_shape("q", q, tuple(p.shape))
    value = 0.5 * float((p.to(torch.float64) - q.to(torch.float64)).abs().sum())
    return Estimate(value=value, kind="exact")


def total_variation(cells: Tensor, cell_probs: Tensor) -> Estimate:
    """½ Σ_c |n_c / N - p_c|, the plug-in estimate.

    It is biased upwards (a perfect sampler scores well above 0: print `total_variation_null` beside it), so the kind
    is `upper_bound`. Its standard error is the delta method's with the signs of n_c / N - p_c held fixed: right away
    from the null, too wide near it, and silent about the bias.

    Arguments:
        cells: Which cell each draw fell into, (N,), integers from 0 to C - 1; give points outside all cells a cell of
            their own.
        cell_probs: Exact masses of the cells, (C,).
    """
    check_probs("cell_probs", cell_probs)
    check_shape("cells", cells, ("N",))
    if cells.is_floating_point() or bool((cells < 0).any()) or bool((cells >= len(cell_probs)).any()):
        raise ValueError(f"cells must be integers from 0 to {len(cell_probs) - 1}")
    n = len(cells)
    frequency = torch.bincount(cells, minlength=len(cell_probs)).to(torch.float64) / n
    excess = frequency - cell_probs.to(cells.device, torch.float64)
    mean_sign = float((frequency * excess.sign()).sum())
    mean_square = float((frequency * excess.sign().abs()).sum())
    return Estimate(
        value=0.5 * float(excess.abs().sum()),
        stderr=0.5 * math.sqrt(max(mean_square - mean_sign**2, 0.0) / n),
        n=n,
        kind="upper_bound",
        note="plug-in, biased up: compare with the null of a perfect sampler",
    )


class TotalVariationNull(NamedTuple):
    """What `total_variation` gives for a perfect sampler."""

    mean: float
    sd: float


def total_variation_null(cell_probs: Tensor, n: int, *, num_draws: int, rng: torch.Generator) -> TotalVariationNull:
    """Mean and standard deviation of `total_variation` for n draws of the truth itself, by simulation.

    Arguments:
        cell_probs: Exact masses of the cells, (C,), at most 2^24 cells.
        n: How many draws each simulated sampler makes.
        num_draws: How many samplers to simulate, at least 2.
        rng: Draws the samples.
    """
    check_probs("cell_probs", cell_probs)
    check_count("n", n)
    check_count("num_draws", num_draws, least=2)
    p = cell_probs.to(rng.device, torch.float64)
    values = torch.tensor(
        [total_variation(torch.multinomial(p, n, replacement=True, generator=rng), p).value for _ in range(num_draws)],
        dtype=torch.float64,
    )
    return TotalVariationNull(mean=float(values.mean()), sd=float(values.std()))
