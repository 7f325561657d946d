"""The two transformers of Optimus: BERT's, from which the posterior is read, and GPT's, into which the latent goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...autoregressive.gpt.generation import generate
from ...autoregressive.gpt.network import GPTNetwork
from ...autoregressive.vocabulary import Choose, total_nll
from ...masked.bert.network import BERTNetwork
from ...tokens import EOS, PAD, finished, shifted
from ...transformer import initialize

LOGITS = 2**20  # logits of one pass: 4 MB, which caches hold


class Encoder(nn.Module):
    """q(z | x) = N(mean, std²) of sequences: tanh(linear) of BERT's first feature, then a linear map without bias.

    What BERT predicts masked tokens with stays as it was given, and is not used.
    """

    def __init__(
        self, vocab_size: int, max_length: int, latent_dim: int, *, num_layers: int, dim: int, num_heads: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bert = BERTNetwork(
            vocab_size, max_length, num_layers=num_layers, dim=dim, num_heads=num_heads, dropout=dropout
        )
        for unused in (*self.bert.head.parameters(), *self.bert.head_norm.parameters(), self.bert.bias):
            unused.requires_grad_(False)
        self.pool = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 2 * latent_dim, bias=False)
        for module in (self.pool, self.head):
            initialize(module)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (B, Z) each, of sequences x (B, T)."""
        mean, log_variance = self.head(self.pool(self.bert.hidden(x)[:, 0]).tanh()).chunk(2, -1)
        return mean, log_variance / 2


class Decoder(nn.Module):
    """p(x | z) = Π_t p(x_t | x_<t, z) by GPT, which z enters in one way or in both.

    As memory: in every block a vector that is linear in z, key and value in one, stands in front of all positions,
    and each may attend to it. As embedding: a vector that is linear in z is added to the embedding of every token.
    """

    def __init__(
        self, vocab_size: int, max_length: int, latent_dim: int, *, num_layers: int, dim: int, num_heads: int,
        dropout: float, memory: bool, embedding: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gpt = GPTNetwork(
            vocab_size, max_length, num_layers=num_layers, dim=dim, num_heads=num_heads, dropout=dropout
        )
        self.memory = nn.Linear(latent_dim, num_layers * dim, bias=False) if memory else None
        self.embedding = nn.Linear(latent_dim, dim, bias=False) if embedding else None
        for module in (self.memory, self.embedding):
            if module is not None:
                initialize(module)

    def injected(self, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What GPT is given of latents z (B, Z): its memory (L, B, 1, 2, H, d / H), and what it adds, (B, d)."""
        memory = None
        if self.memory is not None:
            num_layers, num_heads = len(self.gpt.body.blocks), self.gpt.body.num_heads
            both = self.memory(z).view(len(z), num_layers, 1, 1, num_heads, -1).transpose(0, 1)
            memory = both.expand(-1, -1, -1, 2, -1, -1)  # the key is the value
        return memory, None if self.embedding is None else self.embedding(z)

    def states(self, x: Tensor, z: Tensor) -> Tensor:
        """The features (B, T, d) from which the tokens of x (B, T) are predicted, given latents z (B, Z)."""
        memory, added = self.injected(z)
        return self.gpt.hidden(shifted(x), memory=memory, added=added)

    def nll(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x | z) in nats, summed over the batch, a scalar, of sequences x (B, T) and latents z (B, Z)."""
        states, real = self.states(x, z), x != PAD
        return total_nll(self.gpt.logits(states[real]), x[real])

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B) of sequences x (B, T) and latents z (K, B, Z)."""
        num, real = len(z), x != PAD
        repeated = x.expand(num, -1, -1)
        states = self.states(repeated.flatten(0, 1), z.flatten(0, 1)).view(*repeated.shape, -1)  # (K, B, T, d)
        whole = bool(real.all())
        features, tokens = (states, repeated) if whole else (states[:, real], x[real].expand(num, -1))
        size = max(1, LOGITS // len(self.gpt.output))
        pieces = zip(features.flatten(0, -2).split(size), tokens.flatten().split(size), strict=True)
        each = torch.cat([-cross_entropy(self.gpt.logits(f), ids - 1, reduction="none") for f, ids in pieces])
        if whole:
            return each.view(repeated.shape).sum(2)
        found = each.new_zeros(repeated.shape)
        found[:, real] = each.view(num, -1)
        return found.sum(2)

    @torch.no_grad()
    def generate(self, z: Tensor, length: int, choose: Choose, *, ends: bool) -> Tensor:
        """Sequences (B, length) given latents z (B, Z), token by token.

        Arguments:
            choose: Which token comes next.
            ends: Whether nothing follows EOS.
        """
        memory, added = self.injected(z)
        start = torch.full((len(z), 1), PAD, device=z.device)
        end = EOS if ends else None
        x = generate(self.gpt, start, length, choose, end=end, memory=memory, added=added)
        return finished(x) if ends else x


class OptimusNetwork(nn.Module):
    """Encoder and decoder, of equal size.

    Arguments:
        vocab_size: V; ids are 0 … V - 1, of which PAD has no probability.
        max_length: Tokens of a sequence at most, T.
        latent_dim: Z.
        num_layers: Blocks L of either transformer.
        dim: Features d.
        num_heads: Heads H.
        dropout: Probability with which a feature of the embeddings, or of what a part adds to them, is dropped.
        memory: Whether z is a key and a value in every block of the decoder.
        embedding: Whether z is added to the decoder's embeddings.
    """

    def __init__(
        self, vocab_size: int, max_length: int, *, latent_dim: int, num_layers: int, dim: int, num_heads: int,
        dropout: float, memory: bool, embedding: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        size = {"num_layers": num_layers, "dim": dim, "num_heads": num_heads}
        self.encoder = Encoder(vocab_size, max_length, latent_dim, **size, dropout=dropout)
        self.decoder = Decoder(
            vocab_size, max_length, latent_dim, **size, dropout=dropout, memory=memory, embedding=embedding
        )
