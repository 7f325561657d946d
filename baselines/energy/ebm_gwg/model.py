"""Energy-based models trained by persistent contrastive divergence with Gibbs with gradients."""

from __future__ import annotations

from gmbench.samplers.gwg import GibbsWithGradients

from ..ebm_gibbs.model import PersistentEBM


class GWGEBM(PersistentEBM):
    """Persistent contrastive divergence whose chains flip the bits that the energy's gradient points to.

    Source: W. Grathwohl, K. Swersky, M. Hashemi, D. Duvenaud, C. J. Maddison, "Oops I took a gradient: scalable
    sampling for discrete distributions", 2021, arXiv 2102.04509.
    """

    def sampler(self) -> GibbsWithGradients:
        """One proposed flip a step, from the first-order estimate of every flip's effect."""
        return GibbsWithGradients()
