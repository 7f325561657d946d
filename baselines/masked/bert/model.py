"""BERT: a bidirectional transformer that predicts masked tokens; features and pseudo-likelihoods, no probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from gmbench.errors import UserError
from gmbench.model import Data, Model
from gmbench.randomness import stream
from gmbench.spaces import TokenSequence
from gmbench.training import Gradient, Stage, Step

from ...autoregressive.fitting import FitConfig, adamw, one_cycle, sequences_per_step
from ...autoregressive.ragged import length_blocks, mean_states
from ...autoregressive.vocabulary import token_log_probs, total_nll
from ...latent.best import Best
from ...precision import full_precision
from ...tokens import PAD
from .masking import masked
from .network import BERTNetwork

VALIDATION_ROWS = 1000
TOKENS = 16384  # tokens of one pass, padding included


class BERT(Model):
    """p(x_t | all other tokens) by a pre-norm transformer that sees them all, for tokens that are masked.

    Trained to predict a share of the tokens (15 % in the paper), nats averaged over those of a batch. Every
    `validate_every` steps the nats a masked token of validation sequences, masked once and for all, decide whether the
    present weights become the model (the last step is always a candidate).

    These conditionals belong to no distribution of sequences in general, so there is no `log_prob` and no `sample`:
    `pseudo_log_prob` is the sum of their logarithms, each token masked in turn.

    Sources: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
    Language Understanding", 2018, arXiv 1810.04805; the sum: J. Salazar, D. Liang, T. Q. Nguyen, K. Kirchhoff, "Masked
    Language Model Scoring", 2020, arXiv 1910.14659.

    Raises:
        UserError: The heads do not divide the features.
    """

    class Config(FitConfig):
        num_layers: int = Field(ge=1)
        """Blocks."""
        dim: int = Field(ge=1)
        """Features of a position; perceptrons have four times as many units."""
        num_heads: int = Field(ge=1)
        """Attention heads of a block; they share out the features."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which a feature of the embeddings, or of what a part of a block adds, is dropped."""
        mask_share: float = Field(gt=0, le=1)
        """Probability with which a token is one of those that are predicted."""

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        c = config
        if c.dim % c.num_heads:
            raise UserError(f"num_heads={c.num_heads} does not divide dim={c.dim}")
        self.network = BERTNetwork(
            space.vocab_size,
            space.max_length,
            num_layers=c.num_layers,
            dim=c.dim,
            num_heads=c.num_heads,
            dropout=c.dropout,
        )
        self.best = Best(self.network)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = adamw(self.network, c, betas=(0.9, 0.98))
        held_out = data.validation[:VALIDATION_ROWS]
        shown, chosen = self._masked(held_out, stream("bert/validation"))

        def training_step(x: Tensor, step: Step) -> None:
            nats, num = masked_nll(self.network, *self._masked(x, step.rng), x)
            step.minimize(nats / num, clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(*(one.to(x.device) for one in (shown, chosen, held_out)))

        num, schedule = sequences_per_step(c, held_out), one_cycle(c.warm_up)
        return [Gradient("fit", c.num_steps, num, {"main": adam}, training_step, schedule=schedule)]

    def _masked(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        vocab_size, mask = self.network.vocab_size, self.network.mask
        return masked(x, share=self.config.mask_share, vocab_size=vocab_size, mask=mask, rng=rng)

    @torch.no_grad()
    @full_precision()
    def _validate(self, shown: Tensor, chosen: Tensor, x: Tensor) -> None:
        self.network.eval()
        nats, num = masked_nll(self.network, shown, chosen, x)
        self.network.train()
        self.best.offer(self.network, nats.double() / num)

    @torch.no_grad()
    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Sum over t of log p(x_t | all other tokens) in nats (B,) of sequences x (B, T), each masked in turn.

        The end is one of the tokens. Where it is masked, that nothing stands behind it is still seen.
        """
        self.best.eval()
        network, total = self.best.network, torch.zeros(len(x), device=x.device)
        for rows, length in length_blocks(x, TOKENS):
            part = x[rows, :length]
            which, where = (part != PAD).nonzero(as_tuple=True)  # (N,) each: one copy of the row for each of its tokens
            many = max(1, TOKENS // length)
            for row, t in zip(which.split(many), where.split(many), strict=True):
                copies, each = part[row], torch.arange(len(row), device=x.device)
                tokens = copies[each, t]
                copies[each, t] = network.mask
                features = network.ahead(network.hidden(copies)[each, 1 + t])
                total.index_add_(0, rows[row], token_log_probs(features, network.output, tokens, network.bias))
        return total

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of the last features over the tokens of sequences x (B, T), nothing masked, (B, d)."""
        self.best.eval()
        return mean_states(lambda rows, part: self.best.network.hidden(part)[:, 1:], x, TOKENS)


def masked_nll(network: BERTNetwork, shown: Tensor, chosen: Tensor, x: Tensor) -> tuple[Tensor, int]:
    """Minus log p of the chosen tokens of x (B, T), summed, a scalar in nats, and how many they are.

    Arguments:
        shown: What the network sees of x, (B, T).
        chosen: Which tokens it must predict, (B, T) bool.
    """
    features, tokens = [], []
    for rows, length in length_blocks(x, TOKENS):
        predicted = chosen[rows, :length]
        features.append(network.hidden(shown[rows, :length])[:, 1:][predicted])
        tokens.append(x[rows, :length][predicted])
    targets = torch.cat(tokens)
    return total_nll(network.logits(torch.cat(features)), targets), len(targets)
