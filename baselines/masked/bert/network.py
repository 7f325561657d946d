"""The bidirectional transformer: every position sees all others, and masked tokens are predicted from both sides."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ...tokens import PAD
from ...transformer import Transformer, initialize


class BERTNetwork(nn.Module):
    """Features of token sequences from both sides, and the logits of tokens that are masked.

    In front of every sequence stands id 0, PAD's, whose feature is that of the sequence as a whole; id V is the mask.

    Arguments:
        vocab_size: V. Ids 1 … V - 1 have logits.
        max_length: Tokens of a sequence at most, T.
        num_layers: Blocks L.
        dim: Features d.
        num_heads: Heads H.
        dropout: Probability with which a feature of the embeddings, or of what a part adds to them, is dropped.
    """

    def __init__(
        self, vocab_size: int, max_length: int, *, num_layers: int, dim: int, num_heads: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(vocab_size + 1, dim)
        self.positions = nn.Embedding(max_length + 1, dim)
        self.dropout = nn.Dropout(dropout)
        self.body = Transformer(num_layers, dim, num_heads, dropout, causal=False)
        self.head = nn.Linear(dim, dim)
        self.head_norm = nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(vocab_size - 1))
        for module in (self.tokens, self.positions, self.head):
            initialize(module)

    @property
    def mask(self) -> int:
        """The id of the mask."""
        return self.vocab_size

    def hidden(self, x: Tensor) -> Tensor:
        """Features (B, 1 + T, d) of sequences x (B, T), padded behind: of the whole in front, then of the tokens."""
        real = x != PAD
        x = torch.cat([torch.full_like(x[:, :1], PAD), x], 1)
        visible = None if bool(real.all()) else torch.cat([torch.ones_like(real[:, :1]), real], 1)
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        found: Tensor = self.body(self.dropout(h), visible=visible)
        return found

    @property
    def output(self) -> Tensor:
        """The embeddings (V - 1, d) of ids 1 … V - 1; with what `ahead` gives and the bias they make the logits."""
        return self.tokens.weight[1 : self.vocab_size]

    def ahead(self, hidden: Tensor) -> Tensor:
        """Features (..., d) made ready for the output."""
        return self.head_norm(gelu(self.head(hidden)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V - 1) of the ids 1 … V - 1 at positions with features (..., d)."""
        return self.ahead(hidden) @ self.output.T + self.bias
