"""Translation with additive attention: a recurrent encoder–decoder that aligns as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from gmbench.errors import MissingCapability
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.samplers.noise import uniforms
from gmbench.spaces import TokenPair
from gmbench.training import Gradient, Stage, Step, cosine

from ...latent.best import Best
from ...precision import full_precision
from ...tokens import PAD, padded, trimmed
from ..vocabulary import draw, total_nll
from .network import Translator

VALIDATION_ROWS = 1000
LOGITS = 2**22  # logits of one pass outside training: 16 MB
ROWS = 512  # targets that are generated together


class AttentiveSeq2Seq(Model):
    """p(target | source) = Π_t p(y_t | y_<t, c_t), where the context c_t is what attention finds in the source.

    An LSTM reads the source each way; a third writes the target, at every word with a look at the source: the mean of
    the annotations of its words, weighted by a small network of the state so far and of each annotation. Trained by
    maximum likelihood on true targets so far (teacher forcing), nats averaged over the tokens of a batch; every
    `validate_every` steps the nats a token of validation pairs decide whether the present weights become the model (the
    last step is always a candidate).

    Source: D. Bahdanau, K. Cho, Y. Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
    2015, arXiv 1409.0473, whose gated units are LSTMs here.
    """

    class Config(BaseConfig):
        embedding: int = Field(ge=1)
        """Numbers that a word becomes, of the source as of the target."""
        hidden: int = Field(ge=1)
        """Units of each of the three LSTMs."""
        alignment: int = Field(ge=1)
        """Units of the network that weighs the source's words."""
        maxout: int = Field(ge=1)
        """Features before the output layer, each the larger of two."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which embedded words and features before the output layer are dropped."""
        num_steps: int = Field(ge=1)
        """Gradient steps."""
        batch_size: int = Field(ge=1)
        """Pairs a step."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate of Adam; it falls to 0 along half a cosine."""
        clip: float = Field(gt=0)
        """Largest norm of the gradient."""
        validate_every: int = Field(ge=1)
        """Steps between looks at the validation likelihood."""

    likelihood = Likelihood()
    space: TokenPair

    def __init__(self, config: Any, space: TokenPair) -> None:
        super().__init__(config, space)
        sizes = {name: getattr(config, name) for name in ("embedding", "hidden", "alignment", "maxout", "dropout")}
        self.network = Translator(space, **sizes)
        self.best = Best(self.network)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            source, target = self.space.split(x)
            target = trimmed(target)
            real = target != PAD
            logits, _ = self.network(source, target)
            step.minimize(total_nll(logits[real], target[real]) / real.sum(), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        optimizers = {"main": torch.optim.Adam(self.network.parameters(), c.learning_rate, fused=True)}
        return [Gradient("fit", c.num_steps, c.batch_size, optimizers, training_step, schedule=cosine)]

    @torch.no_grad()
    @full_precision()
    def _validate(self, x: Tensor) -> None:
        self.network.eval()
        log_p = self._token_log_prob(self.network, x)
        self.network.train()
        self.best.offer(self.network, -log_p.double().sum() / (self.space.split(x)[1] != PAD).sum())

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(y_t | y_<t, source) in nats of the target's positions of pairs x (B, S + T), exact, (B, T)."""
        self.best.eval()
        return self._token_log_prob(self.best.network, x)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(target | source) in nats of pairs x (B, S + T), exact, (B,)."""
        return self.token_log_prob(x).double().sum(1).float()

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        """The weights of the source's words as each of the target's is predicted, (B, T, S), of pairs x (B, S + T)."""
        self.best.eval()
        found = []
        for rows in x.split(ROWS):
            source, target = self.space.split(rows)
            weights = self.best.network(source, target)[1]
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

        def choose(logits: Tensor) -> Tensor:
            return draw(logits, uniforms((len(logits),), logits, rng))

        blocks = given.to(self.device).split(ROWS)
        generate = self.best.network.generate
        return torch.cat([generate(source, space.max_length, choose, ends=space.ends) for source in blocks])

    def _token_log_prob(self, network: Translator, x: Tensor) -> Tensor:
        length, vocab_size = self.space.target.max_length, self.space.target.vocab_size
        found = []
        for rows in x.split(max(1, LOGITS // (length * vocab_size))):
            source, target = self.space.split(rows)
            target = trimmed(target)
            logits, _ = network(source, target)
            # what is padded is scored by nothing, and costs 0
            nll = cross_entropy(logits.flatten(0, 1), target.flatten() - 1, ignore_index=PAD - 1, reduction="none")
            found.append(padded(-nll.view(target.shape), length))
        return torch.cat(found)
