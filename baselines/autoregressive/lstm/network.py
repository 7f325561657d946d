"""A word LSTM: embeddings, layers of long short-term memory, and logits of the next token."""

from __future__ import annotations

from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""h and c of every layer, (L, B, H) each."""

INITIAL_RANGE = 0.1


class LSTMNetwork(nn.Module):
    """Features of token sequences from the left, and the logits of what comes next.

    Arguments:
        vocab_size: V. Ids 1 … V - 1 have logits; id 0, PAD's, is read as the start.
        embedding: Features of a token's embedding E.
        hidden: Units of a layer H.
        num_layers: Layers L.
        dropout: Probability with which a feature is dropped from the embeddings and from what each layer gives; never
            from what a layer hands on in time.
        tied: Whether the output's weights are the embeddings; E is H then.
    """

    def __init__(
        self, vocab_size: int, *, embedding: int, hidden: int, num_layers: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers, dropout=dropout if num_layers > 1 else 0.0, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.out = None if tied else nn.Linear(hidden, vocab_size - 1, bias=False)
        self.bias = nn.Parameter(self.tokens.weight.new_zeros(vocab_size - 1))
        nn.init.uniform_(self.tokens.weight, -INITIAL_RANGE, INITIAL_RANGE)
        if self.out is not None:
            nn.init.uniform_(self.out.weight, -INITIAL_RANGE, INITIAL_RANGE)

    def hidden(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Features (B, T, H) of what is read, x (B, T), those at t of x_1 … x_t, and the state after it.

        Arguments:
            state: That after what was read before x; 0 if None.
        """
        h, after = self.lstm(self.dropout(self.tokens(x)), state)
        return self.dropout(h), after

    @property
    def output(self) -> Tensor:
        """The output's weights (V - 1, H) of ids 1 … V - 1."""
        return self.tokens.weight[1:] if self.out is None else self.out.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V - 1) of the ids 1 … V - 1 after features (..., H)."""
        return hidden @ self.output.T + self.bias
