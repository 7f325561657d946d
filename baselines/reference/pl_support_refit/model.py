"""Pseudo-likelihood on a support that the extended BIC chooses along the L1 path."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data
from gmbench.tasks.discrete.ising.pseudo_likelihood import support_then_refit

from ..pseudo_likelihood import CouplingEstimate


class SupportThenRefit(CouplingEstimate):
    """Supports from the L1 path, refitted without penalty; the extended BIC takes one of them."""

    class Config(BaseConfig):
        penalties: Annotated[tuple[float, ...], Field(min_length=1)]
        """Weights of sum_ij |J_ij| that propose supports."""
        gamma: Annotated[float, Field(ge=0, le=1)]
        """Weight of the extended term of the BIC."""
        threshold: Annotated[float, Field(gt=0)]
        """Smallest |J_ij| of an edge."""

    def estimate(self, data: Data) -> Tensor:
        c = self.config
        return support_then_refit(data.fixed, c.penalties, gamma=c.gamma, threshold=c.threshold)
