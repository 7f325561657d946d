"""The two recurrent networks of a variational autoencoder on token sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from ...autoregressive.vocabulary import total_nll
from ...tokens import EOS, PAD, finished, shifted

LOGITS = 2**20  # logits of one pass: 4 MB, which caches hold


class SequencePair(nn.Module):
    """q(z | x) = N(mean(x), std(x)²) by an LSTM, and p(x | z) = Π_t p(x_t | x_<t, z) by another.

    Arguments:
        vocab_size: V; ids are 0 … V - 1, of which PAD has no probability.
        latent_dim: Z.
        embedding: Numbers that a word becomes, in either network.
        hidden: Units of either LSTM.
        dropout: Probability with which the decoder's embedded words and its states before the output layer are dropped.
        init_width: Parameters start uniform in ± this, embeddings in ± ten times this; 0 for torch's own start.
    """

    def __init__(
        self, vocab_size: int, *, latent_dim: int, embedding: int, hidden: int, dropout: float, init_width: float
    ) -> None:
        super().__init__()
        self.init_width = init_width
        self.encoder = Encoder(vocab_size, latent_dim, embedding, hidden)
        self.decoder = Decoder(vocab_size, latent_dim, embedding, hidden, dropout)
        self.restart(self)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), (B, Z) each, of sequences x (B, T)."""
        mean, log_std = self.encoder(x).chunk(2, -1)
        return mean, log_std

    def restart(self, part: nn.Module) -> None:
        """Gives a part of the network new initial values, drawn by torch's global generator."""
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.LSTM | nn.Embedding):
                module.reset_parameters()
                for parameter in module.parameters() if self.init_width else ():
                    width = self.init_width * (10 if isinstance(module, nn.Embedding) else 1)
                    nn.init.uniform_(parameter, -width, width)


class Encoder(nn.Module):
    """Sequences (B, T) to what their posteriors are made of, (B, 2 Z): from the LSTM's state at EOS."""

    def __init__(self, vocab_size: int, latent_dim: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2 * latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        states = self.lstm(self.embedding(x))[0]  # (B, T, H)
        last = (x != PAD).sum(1) - 1  # padding stands behind, where states are not looked at
        found: Tensor = self.head(states[torch.arange(len(x), device=x.device), last])
        return found


class Decoder(nn.Module):
    """p(x | z) by an LSTM into which z enters twice: c_0 = W z with h_0 = tanh(W z), and beside every input word."""

    def __init__(self, vocab_size: int, latent_dim: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.blank = vocab_size  # the id of a word that is withheld
        self.embedding = nn.Embedding(vocab_size + 1, embedding)
        self.start = nn.Linear(latent_dim, hidden, bias=False)
        self.lstm = nn.LSTM(embedding + latent_dim, hidden)
        self.output = nn.Linear(hidden, vocab_size - 1)
        self.dropout = nn.Dropout(dropout)

    def nll(self, x: Tensor, z: Tensor, *, word_dropout: float, rng: Generator) -> Tensor:
        """-log p(x | z) in nats, summed over the batch, a scalar, as it is trained on: with dropout.

        Arguments:
            x: Sequences (B, T).
            z: Latents (B, Z).
            word_dropout: Probability with which an input word is withheld from the decoder.
        """
        inputs = shifted(x)
        if word_dropout:
            chance = torch.rand(inputs.shape, generator=rng, device=rng.device).to(x.device)
            chance[:, 0] = 1.0  # the start is no word
            inputs = inputs.masked_fill(chance < word_dropout, self.blank)
        states, targets = self._states(inputs, z[None]), x.T
        real = targets != PAD
        return total_nll(self.output(states[real]), targets[real])

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B) of sequences x (B, T) and latents z (K, B, Z)."""
        states = self._states(shifted(x), z).flatten(0, 1)  # (T K B, H)
        tokens = x.T[:, None].expand(-1, len(z), -1)  # (T, K, B)
        size = max(1, LOGITS // self.output.out_features)
        each = [
            # what is padded is scored by nothing, and costs 0
            cross_entropy(self.output(some), ids - 1, ignore_index=PAD - 1, reduction="none")
            for some, ids in zip(states.split(size), tokens.flatten().split(size), strict=True)
        ]
        return -torch.cat(each).view(tokens.shape).sum(0)

    @torch.no_grad()
    def generate(self, z: Tensor, length: int, choose: Callable[[Tensor], Tensor], *, ends: bool) -> Tensor:
        """Sequences (B, length) given latents z (B, Z), word by word.

        Arguments:
            choose: Tokens (B,) of logits (B, V - 1) for ids 1 … V - 1.
            ends: Whether nothing follows EOS.
        """
        x = torch.full((len(z), length), PAD, device=z.device)
        memory, token = self._start(z), x[:, 0]
        ended = torch.zeros_like(token, dtype=torch.bool)
        for t in range(length):
            state, memory = self.lstm(torch.cat([self.embedding(token), z], -1)[None], memory)
            token = choose(self.output(state[0]))
            x[:, t] = token
            ended |= token == EOS
            if ends and bool(ended.all()):
                break
        return finished(x) if ends else x

    def _start(self, z: Tensor) -> tuple[Tensor, Tensor]:
        cell = self.start(z)[None]  # (1, N, H)
        return cell.tanh(), cell

    def _states(self, inputs: Tensor, z: Tensor) -> Tensor:
        """The LSTM's states (T, K B, H) as it reads inputs (B, T) beside latents z (K, B, Z)."""
        num, length = len(z), inputs.shape[1]
        words = self.dropout(self.embedding(inputs.T))[:, None].expand(-1, num, -1, -1)
        both = torch.cat([words, z.expand(length, -1, -1, -1)], -1)  # (T, K, B, E + Z)
        states: Tensor = self.lstm(both.flatten(1, 2), self._start(z.flatten(0, 1)))[0]
        return self.dropout(states)
