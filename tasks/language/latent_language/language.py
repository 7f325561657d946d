"""The probit-Pólya language: sentences of two words whose latents, and every probability, are known."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.model import Likelihood
from gmbench.spaces import TokenSequence

from .probit_beta import GaussianBlocks, matched_gaussians

ZERO, ONE = 2, 3  # the ids of the two words


class ProbitPolya:
    """z ~ N(0, I); the T words of block j are ones with probability Φ(z_j), independently of each other.

    Φ(z_j) is uniform, so a block is a Pólya urn: after n of its words with k ones the next is a one with probability
    (k + 1) / (n + 2), and log p(x) = -Σ_j [log(T + 1) + log C(T, k_j)]. Sentences are all A T words long; EOS is
    certain. Blocks stand one after the other, or are interleaved: word t belongs to block t mod A. Either way the
    number of ones in a block is all that tells of its latent.

    Arguments:
        num_blocks: A, the latents that matter.
        block_length: T, words of a block.
        interleaved: Whether neighbouring words are of different blocks.
        num_latents: Latents Z of the posterior, at least A; those beyond A are unused, and keep the prior.

    Sources: F. Eggenberger, G. Pólya, "Über die Statistik verketteter Vorgänge", 1923 (the urn); the posterior is the
    conjugate one, Φ(z_j) ~ Beta(k_j + 1, T - k_j + 1).
    """

    likelihood = Likelihood()

    def __init__(self, num_blocks: int, block_length: int, *, interleaved: bool, num_latents: int) -> None:
        if num_latents < num_blocks:
            raise ValueError(f"{num_blocks} blocks need as many latents, not {num_latents}")
        self.num_blocks, self.block_length, self.num_latents = num_blocks, block_length, num_latents
        self.interleaved = interleaved
        self.num_words = num_blocks * block_length
        self.space = TokenSequence(4, self.num_words + 1, words=("<pad>", "<eos>", "o", "I"))
        k = torch.arange(block_length + 1, dtype=torch.float64)
        log_ways = math.lgamma(block_length + 1) - torch.lgamma(k + 1) - torch.lgamma(block_length - k + 1)
        self.entropy = num_blocks * (math.log(block_length + 1) + float(log_ways.mean()))
        """H(X) in nats a sentence: k is uniform on 0 … T."""
        self.conditional_entropy = self.num_words / 2
        """H(X | Z) in nats a sentence: the entropy of a coin whose bias is uniform is half a nat on average."""
        self.information = self.entropy - self.conditional_entropy
        """I(X; Z) in nats."""

    @cached_property
    def gaussians(self) -> GaussianBlocks:
        """The moment-matched Gaussians of a block's latent, by its number of ones."""
        return matched_gaussians(self.block_length)

    @property
    def evidence_gap(self) -> float:
        """E_x KL(q(z | x) ‖ p(z | x)) in nats of the Gaussian `posterior`, exact: what its evidence bound loses."""
        return self.num_blocks * float(self.gaussians.gap.mean())

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent sentences (num, A T + 1), on the generator's device."""
        like: dict[str, Any] = {"dtype": torch.float64, "generator": rng, "device": rng.device}
        p = torch.special.ndtr(torch.randn(num, self.num_blocks, **like))
        ones = torch.rand(num, self.num_blocks, self.block_length, **like) < p[..., None]
        return self.sentences(ZERO + ones.long())

    def sentences(self, blocks: Tensor) -> Tensor:
        """Blocks of words (B, A, T) as sentences (B, A T + 1)."""
        words = (blocks.mT if self.interleaved else blocks).reshape(len(blocks), self.num_words)
        return torch.cat([words, torch.full_like(words[:, :1], TokenSequence.EOS)], 1)

    def blocks(self, x: Tensor) -> Tensor:
        """The words of sentences x (B, A T + 1) by block, (B, A, T); EOS and padding where a sentence ends early."""
        words = x[:, : self.num_words]
        if self.interleaved:
            return words.reshape(len(x), self.block_length, self.num_blocks).mT
        return words.reshape(len(x), self.num_blocks, self.block_length)

    def frequencies(self, x: Tensor) -> Tensor:
        """The share of ones in each block of sentences x (B, A T + 1), (B, A), float64; 1/2 where it has no words."""
        blocks = self.blocks(x)
        ones, words = (blocks == ONE).sum(-1).double(), (blocks >= ZERO).sum(-1).double()
        return torch.where(words > 0, ones / words.clamp(min=1), 0.5)

    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t) in nats of sentences x (B, A T + 1), as many, float64; -inf of an early end."""
        self.space.validate(x)
        ones = (self.blocks(x) == ONE).double()
        before = torch.arange(self.block_length, device=x.device, dtype=torch.float64)
        p_one = (ones.cumsum(-1) - ones + 1) / (before + 2)
        each = torch.where(ones > 0, p_one.log(), (-p_one).log1p())
        words = (each.mT if self.interleaved else each).reshape(len(x), self.num_words)
        log_p = torch.cat([words, words.new_zeros(len(x), 1)], 1)
        early = (x == TokenSequence.EOS) & (torch.arange(x.shape[1], device=x.device) < self.num_words)
        return log_p.masked_fill(early, -math.inf).masked_fill(x == TokenSequence.PAD, 0.0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of sentences x (B, A T + 1), (B,), float64, exact."""
        return self.token_log_prob(x).sum(1)

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Σ_t log p(x_t | all other tokens) in nats (B,), exact, of sentences x (B, A T + 1) that have all their words.

        The other T - 1 words of a block, k of them ones, make a one likely with probability (k + 1) / (T + 1).
        """
        ones = (self.blocks(x) == ONE).double()
        p_one = (self._counts(x)[..., None] - ones + 1) / (self.block_length + 1)
        return torch.where(ones > 0, p_one.log(), (-p_one).log1p()).sum((1, 2))

    def prior(self) -> Distribution:
        """N(0, I) on the latents (Z,)."""
        zero = torch.zeros(self.num_latents, dtype=torch.float64)
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    def posterior(self, x: Tensor) -> Distribution:
        """The Gaussian with the mean and variance of p(z | x), batch shape (B,), event shape (Z,), float64.

        p(z | x) is no Gaussian: `evidence_gap` says how far it is from this one.
        """
        k = self._counts(x)
        mean, std = (part.to(x.device)[k] for part in self.gaussians[:2])  # (B, A)
        unused = mean.new_zeros(len(x), self.num_latents - self.num_blocks)
        return Independent(Normal(torch.cat([mean, unused], 1), torch.cat([std, unused + 1], 1)), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B), exact, of sentences x (B, A T + 1) and latents z (K, B, Z)."""
        k, z = self._counts(x).double(), z[..., : self.num_blocks].double()
        one, other = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
        return (k * one + (self.block_length - k) * other).sum(-1)

    def decode(self, z: Tensor) -> Tensor:
        """The likeliest sentences (B, A T + 1) given latents z (B, Z): a block is all ones where z_j > 0, else none."""
        ones = (z[:, : self.num_blocks, None] > 0).expand(-1, -1, self.block_length)
        return self.sentences(ZERO + ones.long())

    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean (B, Z), float64."""
        mean: Tensor = self.posterior(x).mean
        return mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """The likeliest sentences at the posterior mean of sentences x (B, A T + 1)."""
        return self.decode(self.encode(x))

    def _counts(self, x: Tensor) -> Tensor:
        """The number of ones in each block, (B, A), of sentences that have all their words."""
        blocks = self.blocks(x)
        if bool((blocks < ZERO).any()):
            raise ValueError(f"a sentence has fewer than {self.num_words} words: it has no posterior")
        return (blocks == ONE).sum(-1)
