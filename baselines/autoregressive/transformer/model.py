"""The transformer of Vaswani et al.: an encoder–decoder, which gives targets exact likelihoods given their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenPair
from gmbench.training import Gradient, Stage, Step

from ...latent.best import Best
from ...precision import full_precision
from ...tokens import PAD, finished, padded, shifted
from ..fitting import FitConfig, adamw, one_cycle, sequences_per_step
from ..ragged import States, placed, token_states
from ..vocabulary import by_quantiles, token_log_probs, total_nll
from .network import TranslationNetwork

VALIDATION_ROWS = 1000
ROWS = 1024  # targets that are generated, or aligned, together
TOKENS = 16384  # of the targets of one pass, padding included


class EncoderDecoder(Model):
    """p(target | source) = Π_t p(y_t | y_<t, source) by attention alone.

    The words of the source look at each other; those of the target at the ones before them and at the source. Trained
    by maximum likelihood on true targets so far (teacher forcing), nats averaged over the tokens of a batch; every
    `validate_every` steps the nats a token of validation pairs decide whether the present weights become the model
    (the last step is always a candidate). Batches are cut into blocks of targets of like length.

    Source: A. Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762. Knowingly different: the norms
    stand before each part, not behind the sum (R. Xiong et al., "On Layer Normalization in the Transformer
    Architecture", 2020, arXiv 2002.04745: it trains without a long warm-up); GELU for ReLU; source and target have
    embeddings of their own, for their ids are not the same words; no label smoothing, which is no likelihood's
    maximum; attention weights are not dropped.

    Raises:
        UserError: The heads do not divide the features.
    """

    class Config(FitConfig):
        num_layers: int = Field(ge=1)
        """Blocks of the encoder, and of the decoder."""
        dim: int = Field(ge=1)
        """Features of a position; perceptrons have four times as many units."""
        num_heads: int = Field(ge=1)
        """Attention heads of a block; they share out the features."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which a feature of the embeddings, or of what a part of a block adds, is dropped."""

    likelihood = Likelihood()
    space: TokenPair

    def __init__(self, config: Any, space: TokenPair) -> None:
        super().__init__(config, space)
        c = config
        if c.dim % c.num_heads:
            raise UserError(f"num_heads={c.num_heads} does not divide dim={c.dim}")
        self.network = TranslationNetwork(
            space, num_layers=c.num_layers, dim=c.dim, num_heads=c.num_heads, dropout=c.dropout
        )
        self.best = Best(self.network)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = adamw(self.network, c, betas=(0.9, 0.98))
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            source, target = self.space.split(x)
            features, places = token_states(states_of(self.network, source), target, TOKENS)
            nll = total_nll(self.network.logits(features), target.flatten()[places])
            step.minimize(nll / len(places), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        num = sequences_per_step(c, self.space.split(held_out)[1])
        return [Gradient("fit", c.num_steps, num, {"main": adam}, training_step, schedule=one_cycle(c.warm_up))]

    @full_precision()
    def _validate(self, x: Tensor) -> None:
        source, target = self.space.split(x)
        self.network.eval()
        log_p = score(self.network, source, target)
        self.network.train()
        self.best.offer(self.network, -log_p.double().sum() / (target != PAD).sum())

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(y_t | y_<t, source) in nats of the target's positions of pairs x (B, S + T), exact, (B, T)."""
        self.best.eval()
        return score(self.best.network, *self.space.split(x))

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(target | source) in nats of pairs x (B, S + T), exact, (B,)."""
        return self.token_log_prob(x).double().sum(1).float()

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        """The weights of the source's words as each of the target's is predicted, (B, T, S), of pairs x (B, S + T).

        They are those of the decoder's last block, averaged over its heads: shares of the source's words and its EOS.
        """
        self.best.eval()
        network, found = self.best.network, []
        for rows in x.split(ROWS):
            source, target = self.space.split(rows)
            weights = network.attention(target, network.read(source))
            found.append(padded(weights.mT, source.shape[1]).mT)
        return torch.cat(found)

    @torch.no_grad()
    def sample(self, num: int, *, given: Tensor | None = None, rng: Generator) -> Tensor:
        """One target (num, T) of each of `num` sources, `given` (num, S), drawn word by word.

        Raises:
            MissingCapability: There are no sources.
            ValueError: There are more, or fewer, than `num`.
        """
        if given is None:
            raise MissingCapability("needs the sources: it gives one target of each")
        if len(given) != num:
            raise ValueError(f"{num} targets of {len(given)} sources")
        self.best.eval()
        space = self.space.target
        end = space.EOS if space.ends else None
        x = torch.cat([
            self.best.network.generate(source, space.max_length, by_quantiles(len(source), rng), end=end)
            for source in given.to(self.device).split(ROWS)
        ])  # fmt: skip
        return finished(x) if space.ends else x


@torch.no_grad()
def score(network: TranslationNetwork, source: Tensor, target: Tensor) -> Tensor:
    """log p(y_t | y_<t, source) in nats of targets (B, T) given sources (B, S), (B, T); 0 where y is padding."""
    features, places = token_states(states_of(network, source), target, TOKENS)
    return placed(token_log_probs(features, network.output, target.flatten()[places]), places, target)


def states_of(network: TranslationNetwork, source: Tensor) -> States:
    """The features from which the tokens of targets of sources (B, S) are predicted."""

    def states(rows: Tensor, part: Tensor) -> Tensor:
        return network.hidden(shifted(part), network.read(source[rows]))

    return states
