"""No couplings at all: the row below which nothing has been learned."""

from __future__ import annotations

from torch import Tensor

from gmbench.model import Data

from ..pseudo_likelihood import CouplingEstimate


class ZeroCouplings(CouplingEstimate):
    """J = 0, whatever the data."""

    def estimate(self, data: Data) -> Tensor:
        return self.J.new_zeros(self.J.shape)
