"""Transformers: pre-norm blocks of self-attention, attention to a source, and a cache of keys and values.

Shapes: B rows, T positions, d features, H heads of d / H features, L blocks, S positions of a source.

Sources: A. Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762; the norms before each part and the
initialization: A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

INITIAL_STD = 0.02

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one block, (B, H, T, d / H) each."""
Extend = Callable[[Tensor, Tensor], KeysValues]
"""`extend(keys, values)`: those of the new positions behind those that are there already."""


class KeyValueCache:
    """Keys and values, in every block, of what a causal transformer has read: a new position reads only itself.

    All is allocated at once. Row r of every later call continues row r of the earlier ones.

    Arguments:
        shape: (L, B, H, T, d / H): T positions at most, the memory's among them.
        like: A tensor whose type and device are taken.
        memory: Keys and values in front of all positions, (L, B, M, 2, H, d / H), if there are such.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], like: Tensor, memory: Tensor | None = None) -> None:
        self._keys, self._values = like.new_empty(shape), like.new_empty(shape)
        self.num_rows = shape[1]
        self.num_tokens = 0
        self._num_memory = 0
        if memory is not None:
            self._num_memory = memory.shape[2]
            for stored, given in zip((self._keys, self._values), memory.unbind(3), strict=True):
                stored[:, :, :, : self._num_memory] = given.transpose(2, 3)

    def append(self, block: int, keys: Tensor, values: Tensor) -> KeysValues:
        """Takes the new positions' keys and values of a block, (B, H, t, d / H), and gives those of all positions.

        Raises:
            ValueError: There is no room for so many.
        """
        begin = self._num_memory + self.num_tokens
        end, room = begin + keys.shape[2], self._keys.shape[3]
        if end > room:
            raise ValueError(f"{keys.shape[2]} positions behind {begin} in a cache of {room}")
        found = []
        for stored, new in ((self._keys[block], keys), (self._values[block], values)):
            stored[: self.num_rows, :, begin:end] = new
            found.append(stored[: self.num_rows, :, :end])
        return found[0], found[1]

    def advance(self, num: int) -> None:
        """Counts `num` new positions, once every block has appended its own."""
        self.num_tokens += num

    def keep(self, rows: Tensor) -> None:
        """Leaves only the rows (B',) of the present ones, in that order."""
        used = self._num_memory + self.num_tokens
        for stored in (self._keys, self._values):
            stored[:, : len(rows), :, :used] = stored[:, rows, :, :used]
        self.num_rows = len(rows)


class SelfAttention(nn.Module):
    """Every position attends to all, or, if causal, to itself and what is before it."""

    def __init__(self, dim: int, num_heads: int, *, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.inner = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *, visible: Tensor | None = None, extend: Extend | None = None) -> Tensor:
        """x (B, T, d) with what each position found, (B, T, d).

        Arguments:
            visible: Which positions (B, T) may be attended to; all if None.
            extend: Puts other keys and values in front, to which every position may attend.
        """
        q, k, v = (_by_head(one, self.num_heads) for one in self.inner(x).chunk(3, -1))
        if extend is not None:
            k, v = extend(k, v)
        num_queries, num_keys = q.shape[2], k.shape[2]
        mask = None if visible is None else visible[:, None, None, :]
        causal = self.causal and num_queries > 1
        if causal and num_keys > num_queries:
            # torch would align its own causal mask with the first keys; ours are those in front of the queries'
            mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=x.device).tril(num_keys - num_queries)
            causal = False
        return self.out(_joined(scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)))


class CrossAttention(nn.Module):
    """Every position attends to the positions of a source."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.inner = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def keys_values(self, source: Tensor) -> KeysValues:
        """The keys and values of a source (B, S, d)."""
        k, v = (_by_head(one, self.num_heads) for one in self.inner(source).chunk(2, -1))
        return k, v

    def forward(self, x: Tensor, source: KeysValues, visible: Tensor | None = None) -> Tensor:
        """What positions x (B, T, d) find in a source of which the positions `visible` (B, S) may be seen."""
        mask = None if visible is None else visible[:, None, None, :]
        q = _by_head(self.query(x), self.num_heads)
        return self.out(_joined(scaled_dot_product_attention(q, *source, attn_mask=mask)))

    def weights(self, x: Tensor, source: KeysValues, visible: Tensor | None = None) -> Tensor:
        """How much positions x (B, T, d) attend to each of the source, (B, H, T, S); they sum to one over S."""
        q = _by_head(self.query(x), self.num_heads)
        scores = q @ source[0].transpose(2, 3) / math.sqrt(q.shape[3])
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None, :], -torch.inf)
        return scores.softmax(3)


class Block(nn.Module):
    """Self-attention, attention to a source if there is one, and a perceptron of 4 d units, each x + f(norm(x))."""

    def __init__(self, dim: int, num_heads: int, dropout: float, *, causal: bool, crossing: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, causal=causal)
        self.cross_norm = nn.LayerNorm(dim) if crossing else None
        self.cross = CrossAttention(dim, num_heads) if crossing else None
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        extend: Extend | None = None,
        source: KeysValues | None = None,
        source_visible: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, d) after the block; arguments as those of its attentions."""
        x = x + self.dropout(self.attention(self.attention_norm(x), visible=visible, extend=extend))
        if self.cross is not None and self.cross_norm is not None:
            assert source is not None
            x = x + self.dropout(self.cross(self.cross_norm(x), source, source_visible))
        return x + self.dropout(self.out(gelu(self.inner(self.norm(x)))))


class Transformer(nn.Module):
    """L blocks and a last norm. Weights start as in GPT-2: N(0, .02²), what is added to x by 1 / √(additions) less.

    Arguments:
        num_layers: L.
        dim: d.
        num_heads: H, which divides d.
        dropout: Probability with which a feature is dropped from what a part adds; attention weights are not dropped.
        causal: Whether a position sees only itself and what is before it.
        crossing: Whether the blocks also attend to a source.

    Raises:
        ValueError: The heads do not divide the features.
    """

    def __init__(
        self, num_layers: int, dim: int, num_heads: int, dropout: float = 0.0, *, causal: bool, crossing: bool = False
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {dim} features")
        self.dim, self.num_heads = dim, num_heads
        blocks = (Block(dim, num_heads, dropout, causal=causal, crossing=crossing) for _ in range(num_layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.apply(initialize)
        num_added = num_layers * (3 if crossing else 2)
        for name, parameter in self.named_parameters():
            if name.endswith("out.weight"):
                nn.init.normal_(parameter, std=INITIAL_STD / math.sqrt(num_added))

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        memory: Tensor | None = None,
        past: KeyValueCache | None = None,
        source: Sequence[KeysValues] | None = None,
        source_visible: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, d) after all blocks, (B, T, d).

        Arguments:
            visible: Which positions (B, T) may be attended to; all if None. Not for causal blocks, whose padding lies
                behind what matters.
            memory: Keys and values in front, which every position may attend to, (L, B, M, 2, H, d / H).
            past: What was read before; it grows by x. It was given its memory when it was made.
            source: What `sources` gave, where the blocks attend to a source.
            source_visible: Which positions (B, S) of the source may be attended to; all if None.
        """
        if memory is not None and past is not None:
            raise ValueError("a cache is given its memory when it is made, not with the positions that it takes")
        for index, block in enumerate(self.blocks):
            extend: Extend | None = None
            if past is not None:
                extend = partial(past.append, index)
            elif memory is not None:
                extend = partial(_behind, memory[index])
            one = None if source is None else source[index]
            x = block(x, visible=visible, extend=extend, source=one, source_visible=source_visible)
        if past is not None:
            past.advance(x.shape[1])
        return self.norm(x)

    def sources(self, source: Tensor) -> list[KeysValues]:
        """Every block's keys and values of a source (B, S, d), which many calls may then share."""
        return [block.cross.keys_values(source) for block in self.blocks]  # type: ignore[union-attr, operator]

    def cache(self, num_rows: int, max_length: int, memory: Tensor | None = None) -> KeyValueCache:
        """An empty cache for at most `max_length` positions of each row, behind a memory if there is one."""
        length = max_length + (0 if memory is None else memory.shape[2])
        shape = (len(self.blocks), num_rows, self.num_heads, length, self.dim // self.num_heads)
        return KeyValueCache(shape, self.norm.weight, memory)


def initialize(module: nn.Module) -> None:
    """Weights of linear maps and embeddings from N(0, .02²), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _by_head(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, d) as (B, H, T, d / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """(B, H, T, d / H) as (B, T, d)."""
    return x.transpose(1, 2).flatten(2)


def _behind(memory: Tensor, keys: Tensor, values: Tensor) -> KeysValues:
    """Keys and values (B, H, T, d / H) behind those of a memory (B, M, 2, H, d / H)."""
    k, v = memory.transpose(1, 3).unbind(2)  # (B, H, M, d / H)
    return torch.cat([k, keys], 2), torch.cat([v, values], 2)
