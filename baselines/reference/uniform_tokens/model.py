"""The uniform distribution over tokens: a row that knows nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenPair, TokenSequence
from gmbench.training import Stage

from ...tokens import finished


class UniformTokens(Model):
    """p(x_t | x_<t) = 1 / (V - 1) for every token but padding, so a sentence of n words has (n + 1) ln(V - 1) nats.

    Its sentences end as often as any other word comes: after V - 2 words on average, or where the row is full. Of
    pairs it is one of the targets, whatever the source.
    """

    likelihood = Likelihood()

    def __init__(self, config: Any, space: Any) -> None:
        super().__init__(config, space)
        self.tokens: TokenSequence = space.target if isinstance(space, TokenPair) else space

    def stages(self, data: Data) -> Sequence[Stage]:
        return []

    def token_log_prob(self, x: Tensor) -> Tensor:
        """-ln(V - 1) at every token of rows x (B, T), (B, T), and 0 at padding; of pairs, of the targets."""
        targets = self.space.split(x)[1] if isinstance(self.space, TokenPair) else x
        return (targets != TokenSequence.PAD) * -math.log(self.tokens.vocab_size - 1)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats, (B,)."""
        return self.token_log_prob(x).sum(1)

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` independent rows (num, T), on the device of the generator; classes and sources change nothing."""
        if given is None and isinstance(self.space, TokenPair):
            raise MissingCapability("needs the sources")
        shape = (num, self.tokens.max_length)
        x = torch.randint(1, self.tokens.vocab_size, shape, generator=rng, device=rng.device)
        return finished(x) if self.tokens.ends else x
