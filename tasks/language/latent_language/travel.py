"""How decoded sentences move when latents do: what lines and sums of latents become, block by block."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate


def on_the_line(ends: Tensor, num_steps: int) -> Tensor:
    """Points from ends[:, 0] to ends[:, 1], both included: (P, 2, Z) becomes (P, num_steps, Z)."""
    share = torch.linspace(0, 1, num_steps, dtype=ends.dtype, device=ends.device)[:, None]
    return (1 - share) * ends[:, :1] + share * ends[:, 1:]


def correlation(found: Tensor, expected: Tensor) -> Estimate:
    """Pearson's correlation over all entries of (P, M) and (P, M), the P rows being independent draws.

    The standard error is the jackknife's over rows. Where one side is constant the correlation is 0, and the note says
    so: what never moves follows nothing.
    """
    a, b = found.double() - found.double().mean(), expected.double() - expected.double().mean()
    size = torch.full((len(a),), float(a.shape[1]), dtype=torch.float64)
    sums = torch.stack([size, a.sum(1), b.sum(1), (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)])  # (6, P)
    total = sums.sum(1, keepdim=True)
    value = float(_pearson(total)[0])
    if len(a) < 3:
        return Estimate(value=value, n=len(a), kind="consistent", note="too few rows for a standard error")
    left_out = _pearson(total - sums)
    stderr = math.sqrt(len(a) - 1) * float(left_out.std(correction=0))
    note = "" if float(total[3]) > 0 and float(total[4]) > 0 else "one side is constant"
    return Estimate(value=value, stderr=stderr, n=len(a), kind="consistent", note=note)


def moves(frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Of paths of frequencies (P, S, A): which blocks end elsewhere than they begin, and which of those never go back.

    Both (P, A), bool; the second only where the first.
    """
    change = frequencies[:, -1] - frequencies[:, 0]
    moved = change != 0
    steps = frequencies.diff(dim=1) * change.sign()[:, None]
    return moved, moved & (steps >= 0).all(1)


def _pearson(sums: Tensor) -> Tensor:
    """Correlations (P,) from n, Σa, Σb, Σa², Σb² and Σab, (6, P)."""
    n, a, b, aa, bb, ab = sums
    spread = ((aa - a * a / n) * (bb - b * b / n)).clamp(min=0).sqrt()
    return torch.where(spread > 1e-12 * n, (ab - a * b / n) / spread, 0.0)
