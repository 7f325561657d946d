"""Energy-based models trained by persistent contrastive divergence with the discrete Langevin proposal."""

from __future__ import annotations

from pydantic import Field

from gmbench.samplers.dmala import DMALA

from ..ebm_gibbs.model import PersistentEBM


class DMALAEBM(PersistentEBM):
    """Persistent contrastive divergence whose chains may flip every bit at once, with or without a Metropolis test.

    Source: R. Zhang, X. Liu, Q. Liu, "A Langevin-like sampler for discrete distributions", 2022, arXiv 2206.09914.
    """

    class Config(PersistentEBM.Config):
        step_size: float = Field(gt=0)
        """The Langevin step, for bits in {0, 1}: larger flips more bits."""
        mh: bool
        """Accept or reject proposals (DMALA), or take them all (DULA)."""

    def sampler(self) -> DMALA:
        """One Langevin proposal a step."""
        return DMALA(self.config.step_size, mh=self.config.mh)
