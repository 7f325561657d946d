"""The true language as if it were a model: every metric must give it its null."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenPair
from gmbench.training import Stage


class Oracle(Model):
    """Hands every question on to the truth that the task gives to reference rows.

    The truth may offer `sample(num, given=, rng=)`, `log_prob(x)`, `token_log_prob(x)`, `pseudo_log_prob(x)` and
    `attention(x)`; what it lacks, the model lacks. It computes on the CPU, and answers come back to where the question
    was. It is no tensor, so no checkpoint holds it: `stages` comes first, also when a finished run is measured again.
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

    def sample(self, num: int, *, given: Tensor | None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T) of the truth, of the classes or for the sources `given`."""
        if given is None and isinstance(self.space, TokenPair):
            raise MissingCapability("needs the sources")
        draw = self._ask("sample")
        x: Tensor = draw(num, rng=rng) if given is None else draw(num, given=given, rng=rng)
        return x.to(rng.device)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """The true log p(x) in nats of rows x (B, T), (B,)."""
        return self._answer("log_prob", x)

    def token_log_prob(self, x: Tensor) -> Tensor:
        """The true log p(x_t | x_<t) in nats, (B, T); of pairs, of the targets given the sources."""
        return self._answer("token_log_prob", x)

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """The true sum over t of log p(x_t | all other tokens) in nats, (B,)."""
        return self._answer("pseudo_log_prob", x)

    def attention(self, x: Tensor) -> Tensor:
        """Which position of the source each of the target comes from, (B, T, S), of pairs x (B, S + T)."""
        return self._answer("attention", x)

    def _answer(self, capability: str, x: Tensor) -> Tensor:
        value: Tensor = self._ask(capability)(x.cpu())
        return value.to(x.device)

    def _ask(self, capability: str) -> Callable[..., Any]:
        if self.truth is None:
            raise MissingCapability("the truth was not handed over: stages(data) comes first")
        method: Callable[..., Any] | None = getattr(self.truth, capability, None)
        if method is None:
            raise MissingCapability(f"the truth of this task has no {capability}")
        return method
