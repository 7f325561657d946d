"""Gauss-Legendre quadrature on one interval and on the intervals between edges, in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def gauss_legendre(low: float, high: float, num: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights that integrate polynomials of degree 2 num - 1 exactly over [low, high].

    Returns:
        Nodes (num,) and weights (num,), float64; the weights sum to high - low.
    """
    nodes, weights = np.polynomial.legendre.leggauss(num)
    half = (high - low) / 2
    return low + half * (1 + torch.from_numpy(nodes)), half * torch.from_numpy(weights)


def gauss_legendre_panels(edges: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The same rule on each interval between neighbouring edges.

    Arguments:
        edges: Increasing edges (P + 1,), float64.
        num: Nodes per interval.

    Returns:
        Nodes (P, num) and weights (P, num), float64.
    """
    unit_nodes, unit_weights = gauss_legendre(0.0, 1.0, num)
    widths = edges.diff()[:, None]  # (P, 1)
    return edges[:-1, None] + widths * unit_nodes, widths * unit_weights
