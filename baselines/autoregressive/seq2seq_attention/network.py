"""An encoder that reads both ways, and a decoder that searches through what it has read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gmbench.spaces import TokenPair

from ...tokens import EOS, PAD, finished, shifted, trimmed


class Memory(nn.Module):
    """Sources (B, S) to annotations h_1 … h_S of their words, (B, S, 2 H): an LSTM's states each way, side by side."""

    def __init__(self, vocab_size: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding)
        self.forwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.backwards = nn.LSTM(embedding, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor) -> Tensor:
        words = self.dropout(self.embedding(source))  # (B, S, E)
        # Turned within each source, so that padding is behind the words in both directions and changes none of them.
        lengths = (source != PAD).sum(1, keepdim=True)
        position = torch.arange(source.shape[1], device=source.device)
        turned = torch.where(position < lengths, lengths - 1 - position, position)[:, :, None]  # its own inverse
        behind = self.backwards(words.gather(1, turned.expand_as(words)))[0]
        behind = behind.gather(1, turned.expand_as(behind))
        return torch.cat([self.forwards(words)[0], behind], -1)


class SearchingDecoder(nn.Module):
    """p(y_t | y_<t, source): an LSTM whose next word is read beside the annotations it looks at.

    The weight of annotation h_j is α_tj = softmax_j v'tanh(W s_t-1 + U h_j), with s_t-1 the state before the word; the
    context is c_t = Σ_j α_tj h_j, the state s_t = LSTM(s_t-1, [y_t-1, c_t]), and the logits are linear in the larger of
    each pair of the features W_o [s_t, y_t-1, c_t] (maxout).

    Arguments:
        vocab_size: V; ids are 0 … V - 1, of which PAD has no probability.
        embedding: Numbers that a word becomes.
        hidden: Units H of the LSTM, and of each of the two that made the annotations.
        alignment: Units of the network that weighs annotations.
        maxout: Features before the output layer.
        dropout: Probability with which embedded words and features are dropped.
    """

    def __init__(
        self, vocab_size: int, *, embedding: int, hidden: int, alignment: int, maxout: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding)
        self.start = nn.Linear(hidden, hidden)
        self.of_state = nn.Linear(hidden, alignment)
        self.of_annotation = nn.Linear(2 * hidden, alignment, bias=False)
        self.energy = nn.Linear(alignment, 1, bias=False)
        self.cell = nn.LSTMCell(embedding + 2 * hidden, hidden)
        self.features = nn.Linear(embedding + 3 * hidden, 2 * maxout)
        self.output = nn.Linear(maxout, vocab_size - 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, memory: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V - 1) of ids 1 … V - 1 of targets (B, T), each given those before, and α (B, T, S).

        Arguments:
            memory: The annotations (B, S, 2 H) of the source.
            source: (B, S); what is padding in it is not looked at.
        """
        words = self.dropout(self.embedding(shifted(target)))  # (B, T, E)
        scene, state = self._begin(memory, source)
        states, contexts, weights = [], [], []
        for word in words.unbind(1):
            context, alpha = self._look(state[0], memory, *scene)
            state = self.cell(torch.cat([word, context], -1), state)
            states.append(state[0])
            contexts.append(context)
            weights.append(alpha)
        return self._logits(torch.stack(states, 1), words, torch.stack(contexts, 1)), torch.stack(weights, 1)

    @torch.no_grad()
    def generate(
        self, memory: Tensor, source: Tensor, length: int, choose: Callable[[Tensor], Tensor], *, ends: bool
    ) -> Tensor:
        """Targets (B, length), word by word; `choose` gives tokens (B,) of logits (B, V - 1) for ids 1 … V - 1.

        Arguments:
            memory, source: As of `forward`.
            ends: Whether nothing follows EOS.
        """
        x = torch.full((len(source), length), PAD, device=source.device)
        scene, state = self._begin(memory, source)
        token, ended = x[:, 0], torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for t in range(length):
            word = self.embedding(token)
            context, _ = self._look(state[0], memory, *scene)
            state = self.cell(torch.cat([word, context], -1), state)
            token = choose(self._logits(state[0], word, context))
            x[:, t] = token
            ended |= token == EOS
            if ends and bool(ended.all()):
                break
        return finished(x) if ends else x

    def _begin(self, memory: Tensor, source: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """What is the same at every position, and the state s_0: from the annotation that has read all, backwards."""
        backwards = memory[:, 0, memory.shape[2] // 2 :]
        state = self.start(backwards).tanh()
        return (self.of_annotation(memory), source != PAD), (state, torch.zeros_like(state))

    def _look(self, state: Tensor, memory: Tensor, keys: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The context (B, 2 H) and the weights (B, S) of a decoder in this state (B, H)."""
        energy = self.energy((self.of_state(state)[:, None] + keys).tanh())[..., 0]  # (B, S)
        alpha = energy.masked_fill(~real, -torch.inf).softmax(1)
        return torch.bmm(alpha[:, None], memory)[:, 0], alpha

    def _logits(self, state: Tensor, word: Tensor, context: Tensor) -> Tensor:
        pairs = self.features(torch.cat([state, word, context], -1)).unflatten(-1, (-1, 2))
        logits: Tensor = self.output(self.dropout(pairs.amax(-1)))
        return logits


class Translator(nn.Module):
    """The two together; sizes as of `SearchingDecoder`."""

    def __init__(self, space: TokenPair, *, embedding: int, hidden: int, alignment: int, maxout: int, dropout: float):
        super().__init__()
        self.memory = Memory(space.source.vocab_size, embedding, hidden, dropout)
        self.decoder = SearchingDecoder(
            space.target.vocab_size,
            embedding=embedding,
            hidden=hidden,
            alignment=alignment,
            maxout=maxout,
            dropout=dropout,
        )

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V - 1) of targets (B, T) given sources (B, S), and the weights of annotations (B, T, S)."""
        source = trimmed(source)
        return self.decoder(self.memory(source), source, target)

    def generate(
        self, source: Tensor, length: int, choose: Callable[[Tensor], Tensor], *, ends: bool
    ) -> Tensor:
        """Targets (B, length) of sources (B, S); the rest as of `SearchingDecoder.generate`."""
        source = trimmed(source)
        return self.decoder.generate(self.memory(source), source, length, choose, ends=ends)
