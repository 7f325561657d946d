"""A hidden Markov model of token sequences, fitted by expectation maximisation, with exact likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.samplers.noise import uniforms
from gmbench.spaces import TokenSequence
from gmbench.training import Call, Gradient, Stage, Step

from ...precision import full_precision
from ...tokens import EOS, PAD, finished, padded, require_no_condition
from ..best import Best
from .chain import Chain, Filtered, Penalty, em_step, forward, log_prob, smooth
from .packing import Packed, pack

ROWS = 1024  # sequences of one block


class Tables(nn.Module):
    """The probabilities of a chain as buffers; equal ones until they are set."""

    def __init__(self, num_states: int, space: TokenSequence) -> None:
        super().__init__()
        tokens = torch.ones(space.vocab_size)
        tokens[[PAD, EOS] if space.ends else [PAD]] = 0  # where sequences end, that is a state's move and no token
        moves = torch.ones(num_states + 1)
        moves[num_states] = float(space.ends)
        self.start: Tensor
        self.transition: Tensor
        self.emission: Tensor
        self.register_buffer("start", moves / moves.sum())
        self.register_buffer("transition", (moves / moves.sum()).repeat(num_states, 1))
        self.register_buffer("emission", (tokens / tokens.sum()).repeat(num_states, 1))

    @property
    def chain(self) -> Chain:
        """The chain with these probabilities."""
        return Chain(self.start, self.transition, self.emission)

    def set(self, chain: Chain) -> None:
        """Takes the probabilities of `chain`."""
        for own, new in zip(self.chain, chain, strict=True):
            own.copy_(new)


class HMM(Model):
    """K hidden states that follow one another as a Markov chain, each with a distribution over words; the end is a
    further state. The formulas and their sources are in `chain.py`.

    EM climbs the likelihood plus the log-density of Dirichlet priors, one iteration a step of its stage, from words'
    frequencies and equal moves, both disturbed at random. Every `validate_every` iterations the validation likelihood
    decides whether the present probabilities become the model.
    """

    class Config(BaseConfig):
        num_states: Annotated[int, Field(ge=1)]
        """States K."""
        num_iterations: Annotated[int, Field(ge=1)]
        """Iterations of EM."""
        transition_smoothing: Annotated[float, Field(ge=0)]
        """Pseudo-count of each move from each state."""
        emission_smoothing: Annotated[float, Field(gt=0)]
        """Pseudo-count of each word in each state."""
        spread: Annotated[float, Field(gt=0)]
        """Standard deviation of the normal noise on the logarithms of the first probabilities."""
        validate_every: Annotated[int, Field(ge=1)]
        """Iterations between looks at the validation likelihood."""

    likelihood = Likelihood()
    space: TokenSequence

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        self.tables = Tables(config.num_states, space)
        self.best = Best(self.tables)

    @property
    def chain(self) -> Chain:
        """The fitted chain, in float64."""
        kept = self.best.network
        assert isinstance(kept, Tables)
        return Chain(*(p.double() for p in kept.chain))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        blocks: list[Packed] = []  # packed at the first step, on the device of the model
        held_out: list[Packed] = []
        num_tokens = int((data.fixed != PAD).sum())
        num_held_out = int((data.validation != PAD).sum())
        penalty = Penalty(c.transition_smoothing, c.emission_smoothing)

        @torch.no_grad()
        @full_precision()
        def em(batch: Tensor, step: Step) -> None:
            if not blocks:
                blocks.extend(self._packed(data.fixed))
                held_out.extend(self._packed(data.validation))
            chain, objective = em_step(self.tables.chain, blocks, penalty, ends=self.space.ends)
            self.tables.set(chain)
            step.log(objective=objective / num_tokens)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                nll = -sum(log_prob(chain, block, ends=self.space.ends) for block in held_out) / num_held_out
                self.best.offer(self.tables, torch.tensor(nll))

        return [Call("start", lambda rng: self._begin(data, rng)), Gradient("EM", c.num_iterations, 0, {}, em)]

    @torch.no_grad()
    def _begin(self, data: Data, rng: Generator) -> None:
        counts = data.fixed.flatten().bincount(minlength=self.space.vocab_size).to(self.tables.emission)
        old = self.tables.chain
        # a word that was never seen begins with half a count
        first = (old.start, old.transition, torch.where(old.emission > 0, counts + 0.5, 0.0))
        noisy = []
        for p in first:
            noise = torch.randn(p.shape, generator=rng, device=rng.device).to(p.device)
            p = p * (self.config.spread * noise).exp()
            noisy.append(p / p.sum(-1, keepdim=True))
        self.tables.set(Chain(*noisy))

    def _packed(self, x: Tensor) -> list[Packed]:
        return pack(x.to(self.device), ends=self.space.ends, num_rows=ROWS)

    def _filtered(self, chain: Chain, x: Tensor) -> list[tuple[Packed, Filtered]]:
        return [(packed, forward(chain, packed, ends=self.space.ends)) for packed in self._packed(x)]

    def _token_log_prob(self, x: Tensor) -> Tensor:
        found = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        for packed, filtered in self._filtered(self.chain, x):
            found[packed.rows] = packed.unpacked(filtered.scale.log(), x.shape[1])
            if self.space.ends:
                found[packed.rows, packed.lengths] = filtered.end.log()
        return found

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_1 … x_t-1) in nats of x (B, T), exact, (B, T); 0 where x is padding."""
        return self._token_log_prob(x).float()

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, T), exact, (B,)."""
        return self._token_log_prob(x).sum(1).float()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The share of the words of x (B, T) that each state is expected to have emitted, (B, K); 0 without words."""
        chain, found = self.chain, torch.zeros(len(x), self.config.num_states, dtype=torch.float64, device=x.device)
        for packed, filtered in self._filtered(chain, x):
            posterior, _ = smooth(chain, packed, filtered, ends=self.space.ends)
            for begin, size in zip(packed.offsets, packed.sizes, strict=False):
                found[packed.rows[:size]] += posterior[begin : begin + size]
            found[packed.rows] /= packed.lengths.clamp(min=1)[:, None]
        return found.float()

    @torch.no_grad()
    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T).

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        chain, end = self.chain, self.config.num_states
        first, moves, emitted = (_cumulative(p) for p in (chain.start[None], chain.transition, chain.emission))
        state = _drawn(first, torch.zeros(num, dtype=torch.int64, device=self.device), rng)
        tokens: list[Tensor] = []
        while len(tokens) < self.space.max_length and bool((state < end).any()):
            at = state.clamp(max=end - 1)
            tokens.append(torch.where(state == end, EOS, _drawn(emitted, at, rng)))
            state = torch.where(state == end, end, _drawn(moves, at, rng))
        if not self.space.ends:
            return torch.stack(tokens, 1)
        tokens.append(torch.full_like(state, EOS))
        return finished(padded(torch.stack(tokens, 1)[:, : self.space.max_length], self.space.max_length))


def _cumulative(rows: Tensor) -> Tensor:
    """Distributions (K, M) as numbers that ascend throughout: row k is k plus its cumulative sums, (K, M) float64."""
    sums = rows.double().cumsum(1)
    return sums / sums[:, -1:] + torch.arange(len(rows), device=rows.device)[:, None]


def _drawn(cumulative: Tensor, row: Tensor, rng: Generator) -> Tensor:
    """A draw from the distribution number `row` (num,) of those that `cumulative` (K, M) holds, (num,)."""
    u, width = uniforms(tuple(row.shape), cumulative, rng), cumulative.shape[1]
    return (torch.searchsorted(cumulative.flatten(), row + u, right=True) - row * width).clamp(0, width - 1)
