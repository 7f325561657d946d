"""An n-gram model of token sequences with interpolated Kneser-Ney smoothing and exact likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenSequence
from gmbench.training import Call, Stage

from ...tokens import EOS, PAD, finished, padded, require_no_condition, trimmed
from .counting import count_ngrams
from .lookup import Drawer, token_probs
from .smoothing import Level, adjusted_counts, discounts, kneser_ney

ROWS = 4096  # sequences scored together


class NGramKneserNey(Model):
    """p(x) = prod_t p(x_t | the n - 1 tokens before), interpolated with all shorter contexts.

    The formulas and their sources are in `smoothing.py`. A context that reaches before the row holds the start, once,
    and is shorter than n - 1. A row of a stream is one sequence: its first token has the start for context. The order n
    is the one of `orders` with the best validation likelihood.

    How many n-grams there are only the data say, so the tables' buffers are empty until `fit`, and loading weights
    gives them the sizes of what is loaded.
    """

    class Config(BaseConfig):
        orders: Annotated[tuple[Annotated[int, Field(ge=1, le=20)], ...], Field(min_length=1)]
        """Candidates for the order n, the length of the longest n-grams; validation picks one."""
        discounts: Literal["one", "three"]
        """One discount for all counts of a length, or one each for counts of one, two, and more (modified)."""

    likelihood = Likelihood()
    space: TokenSequence

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        self.validation_nll: Tensor
        prob = torch.full((space.vocab_size,), 1 / (space.vocab_size - 1))
        prob[PAD] = 0
        for length in range(1, max(config.orders) + 1):
            # an order below the greatest leaves the longer tables empty
            self.register_buffer(f"keys{length}", torch.zeros(0, dtype=torch.int64))
            self.register_buffer(f"prob{length}", prob if length == 1 else torch.zeros(0))
            self.register_buffer(f"backoff{length}", torch.ones_like(prob) if length == 1 else torch.zeros(0))
            self.register_buffer(f"discounts{length}", torch.zeros(3, dtype=torch.float64))
        # of every candidate, in nats a token: the smallest is the model's
        self.register_buffer("validation_nll", torch.full((len(config.orders),), torch.inf, dtype=torch.float64))

    @property
    def levels(self) -> list[Level]:
        """The tables of all lengths that have n-grams."""
        lengths = range(1, max(self.config.orders) + 1)
        found = [Level(*(getattr(self, f"{name}{length}") for name in Level._fields)) for length in lengths]
        return [level for level in found if len(level.prob)]

    def stages(self, data: Data) -> Sequence[Stage]:
        return [Call("count", lambda rng: self._fit(data))]

    @torch.no_grad()
    def _fit(self, data: Data) -> None:
        c = self.config
        ngrams = count_ngrams(data.fixed.to(self.device), self.space.vocab_size, max(c.orders))
        validation = data.validation.to(self.device)
        num_tokens = int((validation != PAD).sum())
        self.validation_nll.fill_(torch.inf)
        for position, order in enumerate(c.orders):
            chosen = [discounts(a, c.discounts) for a in adjusted_counts(ngrams, order)]
            levels = kneser_ney(ngrams, order, chosen)
            nll = -_log_probs(levels, validation).sum() / num_tokens
            if nll < self.validation_nll.min():
                self._keep(levels, chosen)
            self.validation_nll[position] = nll

    def _keep(self, levels: Sequence[Level], used: Sequence[Tensor]) -> None:
        none = torch.zeros(0, device=self.device)
        for length in range(1, max(self.config.orders) + 1):
            kept = levels[length - 1] if length <= len(levels) else Level(none, none, none)
            self.register_buffer(f"keys{length}", kept.keys.long())
            self.register_buffer(f"prob{length}", kept.prob.float())
            self.register_buffer(f"backoff{length}", kept.backoff.float())
            getattr(self, f"discounts{length}").copy_(used[length - 1] if length <= len(used) else torch.zeros(3))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            stored = state_dict.get(prefix + name)
            if name.startswith(Level._fields) and isinstance(stored, Tensor) and stored.ndim == 1:
                self.register_buffer(name, buffer.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_1 … x_t-1) in nats of x (B, T), exact, (B, T); 0 where x is padding."""
        return _log_probs(self.levels, x).float()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, T), exact, (B,)."""
        return _log_probs(self.levels, x).sum(1).float()

    @torch.no_grad()
    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T).

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        drawer, length = Drawer(self.levels, num), self.space.max_length
        tokens: list[Tensor] = []
        ended = torch.zeros(num, dtype=torch.bool, device=self.device)
        while len(tokens) < length and not (self.space.ends and bool(ended.all())):
            tokens.append(drawer.next(rng))
            ended |= tokens[-1] == EOS
        x = torch.stack(tokens, 1)
        return finished(padded(x, length)) if self.space.ends else x


def _log_probs(levels: Sequence[Level], x: Tensor) -> Tensor:
    """log p of each token of x (B, T), (B, T), float64; 0 where x is padding."""
    used = trimmed(x)
    p = torch.cat([token_probs(levels, rows) for rows in used.split(ROWS)])
    return padded(torch.where(used == PAD, 0.0, p.log()), x.shape[1])
