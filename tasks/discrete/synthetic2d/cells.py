"""A coarse grid over the square that a code covers: cells of points, their centres, exact masses."""

from __future__ import annotations

import torch
from torch import Tensor

from .density import Density


def cell_edges(half_width: float, num_cells: int) -> Tensor:
    """Edges of the cells along one axis: (num_cells + 1,) float64."""
    return torch.linspace(-half_width, half_width, num_cells + 1, dtype=torch.float64)


def cell_centres(half_width: float, num_cells: int) -> Tensor:
    """Centres of the cells in the order of `cell_index`: (num_cells^2, 2) float64."""
    edges = cell_edges(half_width, num_cells)
    middles = (edges[1:] + edges[:-1]) / 2
    return torch.cartesian_prod(middles, middles)


def cell_index(points: Tensor, half_width: float, num_cells: int) -> Tensor:
    """Cells of points (N, 2), column * num_cells + row: (N,) int64; points outside go to the nearest cell."""
    scaled = (points.double() + half_width) * (num_cells / (2 * half_width))
    cell = scaled.floor().long().clamp(0, num_cells - 1)
    return cell[:, 0] * num_cells + cell[:, 1]


def cell_masses(density: Density, half_width: float, num_cells: int) -> Tensor:
    """Probabilities of the cells in the order of `cell_index`, normalised over the square: (num_cells^2,) float64.

    By quadrature, each within 1e-7 (the checkerboard: exact areas). The mass outside of the square, below 1e-9 for each
    density and its code, is spread over the cells by the normalisation.
    """
    edges = cell_edges(half_width, num_cells)
    masses = density.box_masses(edges, edges).flatten()
    return masses / masses.sum()
