"""Maximum pseudo-likelihood over all couplings, without a penalty."""

from __future__ import annotations

from torch import Tensor

from gmbench.model import Data
from gmbench.tasks.discrete.ising.pseudo_likelihood import fit_dense

from ..pseudo_likelihood import CouplingEstimate


class DensePseudoLikelihood(CouplingEstimate):
    """All D (D - 1) / 2 couplings free: what a dense learner of couplings can be expected to reach."""

    def estimate(self, data: Data) -> Tensor:
        return fit_dense(data.fixed)
