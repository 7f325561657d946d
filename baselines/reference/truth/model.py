"""The true distribution as if it were a model: every metric must give it its null."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.model import Data, Likelihood, Model
from gmbench.training import Stage


class Truth(Model):
    """Hands every question on to the truth that the task gives to reference rows.

    The truth may offer `sample(num, rng=)`, `log_prob(x)`, `energy(x)` and `couplings()`; what it lacks, the model
    lacks. It is no tensor, so no checkpoint holds it: `stages` comes first, also when a finished run is measured again.
    """

    likelihood = Likelihood()

    def __init__(self, config: Any, space: Any) -> None:
        super().__init__(config, space)
        self.truth: Any = None

    def stages(self, data: Data) -> Sequence[Stage]:
        if data.truth is None:
            raise MissingCapability("the truth of this variant is not known")
        self.truth = data.truth
        return []

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D) of the true distribution."""
        x: Tensor = self._ask("sample")(num, rng=rng)
        return x

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """The true log p(x) in nats of x (B, D), (B,)."""
        value: Tensor = self._ask("log_prob")(x)
        return value

    def energy(self, x: Tensor) -> Tensor:
        """An energy of the true distribution, (B,), in nats."""
        value: Tensor = self._ask("energy")(x)
        return value

    def couplings(self) -> Tensor:
        """The true J (D, D)."""
        J: Tensor = self._ask("couplings")()
        return J

    def _ask(self, capability: str) -> Callable[..., Any]:
        if self.truth is None:
            raise MissingCapability("the truth was not handed over: stages(data) comes first")
        method: Callable[..., Any] | None = getattr(self.truth, capability, None)
        if method is None:
            raise MissingCapability(f"the truth of this task has no {capability}")
        return method
