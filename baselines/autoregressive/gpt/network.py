"""The decoder-only transformer: token and position embeddings, causal blocks, and logits by the same embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from ...transformer import KeyValueCache, Transformer, initialize


class GPTNetwork(nn.Module):
    """Features of token sequences from the left, and the logits of what comes next.

    A sequence that is read begins with a start: id 0, PAD's, which is free in front, or V + c for a start of its own.

    Arguments:
        vocab_size: V. Ids 1 … V - 1 have logits.
        max_length: Positions T that may be read at most, the start among them.
        num_layers: Blocks L.
        dim: Features d.
        num_heads: Heads H.
        dropout: Probability with which a feature of the embeddings, or of what a part adds to them, is dropped.
        num_starts: Ids above V - 1 that can be read, and have no logits.
    """

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        num_layers: int,
        dim: int,
        num_heads: int,
        dropout: float = 0.0,
        num_starts: int = 0,
    ) -> None:
        super().__init__()
        self.vocab_size, self.max_length = vocab_size, max_length
        self.tokens = nn.Embedding(vocab_size + num_starts, dim)
        self.positions = nn.Embedding(max_length, dim)
        self.dropout = nn.Dropout(dropout)
        self.body = Transformer(num_layers, dim, num_heads, dropout, causal=True)
        initialize(self.tokens)
        initialize(self.positions)

    def hidden(
        self,
        x: Tensor,
        *,
        past: KeyValueCache | None = None,
        memory: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Features (B, T, d) of what is read, x (B, T); those at t depend on x_1 … x_t.

        Arguments:
            past: What was read before x, from `cache`; it grows by x.
            memory: Further keys and values in every block, (L, B, M, 2, H, d / H), that all positions see. Positions
                count from 0 whether there is a memory or not. With `past`, give it to `cache` instead.
            added: Features (B, d) that are added to every token's embedding.

        Raises:
            ValueError: More positions are read, with those in the past, than there are.
        """
        begin = 0 if past is None else past.num_tokens
        end = begin + x.shape[1]
        if end > self.max_length:
            raise ValueError(f"{x.shape[1]} tokens behind {begin}, and there are {self.max_length} positions")
        h = self.tokens(x) + self.positions.weight[begin:end]
        if added is not None:
            h = h + added[:, None]
        found: Tensor = self.body(self.dropout(h), memory=memory, past=past)
        return found

    @property
    def output(self) -> Tensor:
        """The embeddings (V - 1, d) of ids 1 … V - 1, whose products with features are logits."""
        return self.tokens.weight[1 : self.vocab_size]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V - 1) of the ids 1 … V - 1 after features (..., d)."""
        return hidden @ self.output.T

    def cache(self, num_rows: int, max_length: int | None = None, memory: Tensor | None = None) -> KeyValueCache:
        """An empty cache for `hidden`, for `max_length` positions (all that there are if None) of each row."""
        return self.body.cache(num_rows, max_length or self.max_length, memory)
