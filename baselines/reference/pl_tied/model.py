"""Pseudo-likelihood with the true edges and one coupling for all of them."""

from __future__ import annotations

from torch import Tensor

from gmbench.model import Data
from gmbench.tasks.discrete.ising.pseudo_likelihood import fit_tied

from ..pseudo_likelihood import CouplingEstimate, true_edges


class TiedCoupling(CouplingEstimate):
    """One free number: J = sigma A with the true adjacency matrix A."""

    def estimate(self, data: Data) -> Tensor:
        return fit_tied(data.fixed, true_edges(data))
