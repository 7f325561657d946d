"""The cipher channel: a source read backwards, each word replaced by its cipher, some of them by chance by another."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.model import Likelihood
from gmbench.spaces import TokenPair, TokenSequence

NUM_WORDS = 26
FIRST = 2  # the id of the first word, after PAD and EOS
FACTOR, SHIFT = 7, 3  # the cipher of word v is (7 v + 3) mod 26: a permutation, since 7 and 26 have no common divisor
PAD, EOS = TokenSequence.PAD, TokenSequence.EOS


class CipherChannel:
    """y_t = cipher(x_{n+1-t}) with probability 1 - ε, otherwise any of the other V - 1 words, all alike; t = 1 … n.

    Source words are uniform, lengths n too; the target is as long as its source, so its EOS is certain. Given the
    source, words of the target are independent: H(Y | X) = E[n] (h(ε) + ε log(V - 1)), h the entropy of a coin.

    Arguments:
        noise: ε, in [0, 1).
        shortest, longest: The range of n, both included.
    """

    likelihood = Likelihood()

    def __init__(self, noise: float, *, shortest: int, longest: int) -> None:
        self.noise, self.shortest, self.longest = noise, shortest, longest
        hidden = ("<pad>", "<eos>")
        letters = [chr(ord("a") + number) for number in range(NUM_WORDS)]
        source = TokenSequence(NUM_WORDS + FIRST, longest + 1, words=(*hidden, *letters))
        target = TokenSequence(NUM_WORDS + FIRST, longest + 1, words=(*hidden, *map(str.upper, letters)))
        self.space = TokenPair(source, target)
        self.entropy_of_word = -(1 - noise) * math.log1p(-noise)
        """H(Y | X) in nats a word of the target, exact."""
        if noise > 0:
            self.entropy_of_word += noise * math.log((NUM_WORDS - 1) / noise)
        self.entropy = self.entropy_of_word * (shortest + longest) / 2
        """H(Y | X) in nats a target, exact."""

    def sources(self, num: int, *, rng: Generator) -> Tensor:
        """`num` independent sources (num, S), on the generator's device."""
        device = rng.device
        lengths = torch.randint(self.shortest, self.longest + 1, (num, 1), generator=rng, device=device)
        words = FIRST + torch.randint(NUM_WORDS, (num, self.longest), generator=rng, device=device)
        return _ended(words, lengths)

    def pairs(self, num: int, *, rng: Generator) -> Tensor:
        """`num` independent pairs (num, S + T)."""
        sources = self.sources(num, rng=rng)
        return torch.cat([sources, self.sample(num, given=sources, rng=rng)], 1)

    def sample(self, num: int, *, given: Tensor | None = None, rng: Generator) -> Tensor:
        """One target (num, T) of each of `num` sources, `given` (num, S)."""
        if given is None:
            raise MissingCapability("needs the sources: it gives one target of each")
        if len(given) != num:
            raise ValueError(f"{num} targets of {len(given)} sources")
        shape, device = given.shape, rng.device
        plain = self.plain(given.to(device))
        wrong = torch.rand(shape, dtype=torch.float64, generator=rng, device=device) < self.noise
        offset = torch.randint(1, NUM_WORDS, shape, generator=rng, device=device)
        other = FIRST + (plain - FIRST + offset) % NUM_WORDS
        return torch.where(wrong & (plain >= FIRST), other, plain)

    def plain(self, sources: Tensor) -> Tensor:
        """What sources (B, S) become without noise, (B, T)."""
        words = FIRST + (FACTOR * (sources.gather(1, self._origins(sources)) - FIRST) + SHIFT) % NUM_WORDS
        return _ended(words[:, : self.longest], _lengths(sources)[:, None])

    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(y_t | source) in nats of the target's positions of pairs x (B, S + T), (B, T), float64."""
        self.space.validate(x)
        sources, targets = self.space.split(x)
        plain = self.plain(sources)
        right = math.log1p(-self.noise)
        wrong = math.log(self.noise / (NUM_WORDS - 1)) if self.noise > 0 else -math.inf
        log_p = torch.full(targets.shape, wrong, dtype=torch.float64, device=x.device)
        log_p[targets == plain] = right
        ends = targets == EOS
        log_p[ends != (plain == EOS)] = -math.inf  # neither an early end nor a word in its place
        log_p[ends & (plain == EOS)] = 0.0
        log_p[plain == PAD] = -math.inf
        return log_p.masked_fill(targets == PAD, 0.0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(target | source) in nats of pairs x (B, S + T), (B,), float64, exact."""
        return self.token_log_prob(x).sum(1)

    def attention(self, x: Tensor) -> Tensor:
        """Where each word of the target of pairs x (B, S + T) comes from, (B, T, S), float32, one-hot.

        Its EOS, and the padding behind, come from the source's EOS.
        """
        sources, _ = self.space.split(x)
        return torch.nn.functional.one_hot(self._origins(sources), sources.shape[1]).float()

    def _origins(self, sources: Tensor) -> Tensor:
        """The position of the source that each of the target is made of, (B, T): n - 1 - t, and EOS's where t >= n."""
        lengths = _lengths(sources)[:, None]
        t = torch.arange(sources.shape[1], device=sources.device)
        return torch.where(t < lengths, lengths - 1 - t, lengths)


def _lengths(sources: Tensor) -> Tensor:
    """The number of words of each row, (B,)."""
    return (sources >= FIRST).sum(1)


def _ended(words: Tensor, lengths: Tensor) -> Tensor:
    """Words (B, L) cut to lengths (B, 1), with EOS behind them and then PAD, (B, L + 1)."""
    t = torch.arange(words.shape[1] + 1, device=words.device)
    x = torch.nn.functional.pad(words, (0, 1))
    return torch.where(t < lengths, x, torch.where(t == lengths, EOS, PAD))
