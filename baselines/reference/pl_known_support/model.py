"""Pseudo-likelihood on the true edges: the free-edge reference."""

from __future__ import annotations

from torch import Tensor

from gmbench.model import Data
from gmbench.tasks.discrete.ising.pseudo_likelihood import fit_on_support

from ..pseudo_likelihood import CouplingEstimate, true_edges


class KnownSupport(CouplingEstimate):
    """The true edges are given, their couplings are free. Not a ceiling: an energy that shares weights may beat it."""

    def estimate(self, data: Data) -> Tensor:
        return fit_on_support(data.fixed, true_edges(data))
