"""Maximum pseudo-likelihood with an L1 penalty chosen on held-out rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data
from gmbench.tasks.discrete.ising.pseudo_likelihood import choose_lambda, fit_l1

from ..pseudo_likelihood import CouplingEstimate


class L1PseudoLikelihood(CouplingEstimate):
    """The penalty with the best pseudo-likelihood on held-out training rows, then a fit of all rows with it."""

    class Config(BaseConfig):
        penalties: Annotated[tuple[float, ...], Field(min_length=1)]
        """Candidates for the weight of sum_ij |J_ij|."""
        train_share: Annotated[float, Field(gt=0, lt=1)]
        """Share of the training rows on which candidates are fitted; the others judge them."""

    def estimate(self, data: Data) -> Tensor:
        x = data.fixed
        penalty = choose_lambda(x, self.config.penalties, train_share=self.config.train_share)
        return fit_l1(x, penalty)
