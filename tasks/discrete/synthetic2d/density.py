"""What every density on the plane offers: independent draws, its logarithm, masses of boxes, entropy."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .quadrature import gauss_legendre_panels


class Density(ABC):
    """A probability density on the plane whose logarithm is known.

    Arguments:
        name: The name that the variants of the task use.
        panel: Side of the boxes, in the plane's unit, on which the rule below is trusted.
        order: Nodes per side of such a box of the Gauss-Legendre rule for masses and entropy.
    """

    name: str
    panel: float
    order: int

    @abstractmethod
    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        """Independent draws in independent order: (num, 2) float64, on the generator's device."""

    @abstractmethod
    def log_density(self, points: Tensor) -> Tensor:
        """Nats per unit area at points (N, 2): (N,) float64; -inf outside of the support."""

    def grid_density(self, x: Tensor, y: Tensor) -> Tensor:
        """The density itself on the product of coordinates x (I,) and y (J,): (I, J) float64."""
        return self.log_density(torch.cartesian_prod(x, y)).exp().reshape(len(x), len(y))

    def log_cell_mass(self, centres: Tensor, side: float) -> Tensor:
        """Log probability of squares of a given side around centres (N, 2), by the midpoint rule: (N,) float64.

        Its relative error is side^2/24 times the Laplacian of p over p: below 1e-5 at typical points of these densities
        for the 32-bit code, whose cells have a side below 2e-4.
        """
        return self.log_density(centres) + 2 * math.log(side)

    def box_masses(self, x_edges: Tensor, y_edges: Tensor) -> Tensor:
        """Probabilities of the boxes between edges (I + 1,) and (J + 1,), by quadrature: (I, J) float64."""
        x, x_weights = _nodes(x_edges, self.panel, self.order)  # (I, Q)
        y, y_weights = _nodes(y_edges, self.panel, self.order)  # (J, R)
        density = self.grid_density(x.flatten(), y.flatten()).reshape(*x.shape, *y.shape)
        return torch.einsum("iqjr,iq,jr->ij", density, x_weights, y_weights)

    def entropy(self, half_width: float) -> float:
        """Differential entropy in nats, -int p ln p over the square |x|, |y| <= half_width, by quadrature."""
        edges = torch.tensor([-half_width, half_width], dtype=torch.float64)
        nodes, weights = _nodes(edges, self.panel, self.order)
        density = self.grid_density(nodes[0], nodes[0])
        return float(-weights[0] @ torch.special.xlogy(density, density) @ weights[0])


def _nodes(edges: Tensor, panel: float, order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (P, Q) on the intervals between edges, each cut into equal panels no wider than `panel`."""
    cuts = max(1, math.ceil(float(edges.diff().max()) / panel - 1e-9))
    fractions = torch.arange(cuts, dtype=torch.float64) / cuts
    fine = (edges[:-1, None] + edges.diff()[:, None] * fractions).flatten()
    nodes, weights = gauss_legendre_panels(torch.cat([fine, edges[-1:]]), order)
    return nodes.reshape(len(edges) - 1, -1), weights.reshape(len(edges) - 1, -1)
