"""The base of the Ising reference rows that estimate couplings by maximum pseudo-likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.model import Data, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage


class CouplingEstimate(Model):
    """log p(s) = s'Js - log Z for spins s = 2x - 1, with J from one call of `estimate`.

    The estimators are in `gmbench.tasks.discrete.ising.pseudo_likelihood`; a subclass chooses one.
    """

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.J: Tensor
        self.register_buffer("J", torch.zeros(space.dim, space.dim, dtype=torch.float64))

    def estimate(self, data: Data) -> Tensor:
        """J (D, D), symmetric with zero diagonal."""
        raise NotImplementedError

    def stages(self, data: Data) -> Sequence[Stage]:
        def run(rng: Generator) -> None:
            self.J.copy_(self.estimate(data))

        return [Call("estimate", run)]

    def couplings(self) -> Tensor:
        """J (D, D), float64."""
        return self.J

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -s'Js of x (B, D), (B,), in nats; its normalising constant is not computed."""
        s = (2 * x - 1).to(self.J)
        return -torch.einsum("bi,bi->b", s @ self.J, s)


def true_edges(data: Data) -> Tensor:
    """Where the true couplings are not zero, (D, D) float64 of 0 and 1."""
    if data.truth is None:
        raise MissingCapability("this reference row needs the truth, which this variant does not give")
    edges: Tensor = (data.truth.couplings() != 0).to(torch.float64)
    return edges
