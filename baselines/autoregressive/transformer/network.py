"""The encoder–decoder transformer: what it reads, what it writes, and where it looks as it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmbench.spaces import TokenPair

from ...tokens import PAD, shifted, trimmed
from ...transformer import KeysValues, KeyValueCache, Transformer
from ..generation import generated
from ..vocabulary import Choose

LONGEST_WAVE = 10000.0


@dataclass
class Memory:
    """Sources as the decoder sees them: keys and values (B, H, S, d / H) for each block, and which of S are words."""

    keys_values: list[KeysValues]
    visible: Tensor  # (B, S)

    def kept(self, rows: Tensor) -> Memory:
        """Those of the rows (B',), in that order."""
        return Memory([(keys[rows], values[rows]) for keys, values in self.keys_values], self.visible[rows])


class Embedding(nn.Module):
    """√d times a token's embedding, and sines and cosines of its position, (B, T) to (B, T, d).

    Feature 2 i of position t is sin(t / 10000^(2 i / d)), feature 2 i + 1 the cosine of the same.
    """

    def __init__(self, vocab_size: int, max_length: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.tokens.weight, std=dim**-0.5)  # as input of about the size of the waves
        self.dropout = nn.Dropout(dropout)
        self.positions: Tensor
        self.register_buffer("positions", waves(max_length, dim), persistent=False)

    def forward(self, x: Tensor, begin: int = 0) -> Tensor:
        """Features of tokens x (B, T) at the positions from `begin` on; ValueError if there are not so many."""
        num, dim = self.positions.shape
        end = begin + x.shape[1]
        if end > num:
            raise ValueError(f"{x.shape[1]} tokens behind {begin}, and there are {num} positions")
        h = self.tokens(x) * math.sqrt(dim) + self.positions[begin:end]
        found: Tensor = self.dropout(h)
        return found


class TranslationNetwork(nn.Module):
    """p(y_t | y_<t, source) by an encoder whose positions see each other, and a causal decoder that sees them.

    A target that is read begins with a start: id 0, PAD's, which is free in front. Logits are products with the
    embeddings of the target's tokens.

    Arguments:
        space: Sources and targets; each has its own embeddings.
        num_layers: Blocks L of the encoder, and of the decoder.
        dim: Features d.
        num_heads: Heads H of every attention.
        dropout: Probability with which a feature of the embeddings, or of what a part adds to them, is dropped.
    """

    def __init__(self, space: TokenPair, *, num_layers: int, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.source = Embedding(space.source.vocab_size, space.source.max_length, dim, dropout)
        self.target = Embedding(space.target.vocab_size, space.target.max_length, dim, dropout)
        self.encoder = Transformer(num_layers, dim, num_heads, dropout, causal=False)
        self.decoder = Transformer(num_layers, dim, num_heads, dropout, causal=True, crossing=True)

    def read(self, source: Tensor) -> Memory:
        """Sources (B, S) for the decoder; columns that are padding in all of them are left out."""
        source = trimmed(source)
        visible = source != PAD
        return Memory(self.decoder.sources(self.encoder(self.source(source), visible=visible)), visible)

    def hidden(self, x: Tensor, memory: Memory, *, past: KeyValueCache | None = None) -> Tensor:
        """Features (B, T, d) after what is read of the target, x (B, T): a start and y_1 … y_T-1.

        Arguments:
            past: What was read before x, from `cache`; it grows by x.
        """
        h = self.target(x, 0 if past is None else past.num_tokens)
        found: Tensor = self.decoder(h, past=past, source=memory.keys_values, source_visible=memory.visible)
        return found

    @property
    def output(self) -> Tensor:
        """The embeddings (V - 1, d) of the target's ids 1 … V - 1, whose products with features are logits."""
        return self.target.tokens.weight[1:]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V - 1) of the target's ids 1 … V - 1 after features (..., d)."""
        return hidden @ self.output.T

    def attention(self, target: Tensor, memory: Memory) -> Tensor:
        """The weights of a source's words as each token of targets (B, T) is predicted, (B, T, S).

        They are those of the decoder's last block, averaged over its heads; dropout must be off.
        """
        h = self.target(shifted(target))
        *blocks, last = self.decoder.blocks
        for block, source in zip(blocks, memory.keys_values[:-1], strict=True):
            h = block(h, source=source, source_visible=memory.visible)
        h = h + last.attention(last.attention_norm(h))  # type: ignore[operator]
        weights: Tensor = last.cross.weights(last.cross_norm(h), memory.keys_values[-1], memory.visible)  # type: ignore[union-attr, operator]
        return weights.mean(1)

    @torch.no_grad()
    def generate(self, source: Tensor, num_tokens: int, choose: Choose, *, end: int | None) -> Tensor:
        """One target of each source (B, S), (B, num_tokens), padded behind the end of each.

        Every position is computed once: its keys and values stay in a cache for those that follow. Rows leave once
        they have ended.

        Arguments:
            choose: Which token comes next; `vocabulary.by_quantiles` draws it.
            end: The token after which a row does not grow, or None if all have `num_tokens`.
        """
        memory, past = self.read(source), self.decoder.cache(len(source), num_tokens)

        def logits(new: Tensor, rows: Tensor) -> Tensor:
            return self.logits(self.hidden(new, memory, past=past)[:, -1])

        def keep(rows: Tensor) -> None:
            nonlocal memory
            past.keep(rows)
            memory = memory.kept(rows)

        start = torch.full_like(source[:, :1], PAD)
        return generated(start, num_tokens, choose, logits, keep, end=end)


def waves(length: int, dim: int) -> Tensor:
    """The features of positions 0 … length - 1, (length, dim)."""
    angles = torch.arange(length)[:, None] / LONGEST_WAVE ** (torch.arange(0, dim, 2) / dim)  # (length, ⌈dim / 2⌉)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :dim]
