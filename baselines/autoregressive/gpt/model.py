"""GPT: a decoder-only transformer, an autoregressive model of token sequences with exact likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenSequence
from gmbench.training import Gradient, Stage, Step

from ...latent.best import Best
from ...precision import full_precision
from ...tokens import PAD, finished, shifted
from ..fitting import FitConfig, adamw, one_cycle, sequences_per_step
from ..ragged import States, mean_states, placed, token_states
from ..vocabulary import by_quantiles, token_log_probs, total_nll
from .generation import generate
from .network import GPTNetwork

VALIDATION_ROWS = 1000
ROWS = 1024  # sequences that are generated together
TOKENS = 16384  # tokens of one pass, padding included


class GPT(Model):
    """p(x) = prod_t p(x_t | x_<t) by a pre-norm transformer with causal attention, as in GPT-2.

    Trained by maximum likelihood, nats averaged over the tokens of a batch; every `validate_every` steps the nats a
    token of validation sequences decide whether the present weights become the model (the last step is always a
    candidate). Batches are cut into blocks of rows of like length, so little of what is computed is padding.

    With `num_classes`, trained on sequences with their classes: the class c stands where a sequence starts, so
    `sample(given=c)` draws from p(x | c). p(x) is then the mixture of all classes with their shares of what was
    trained on, exact, and p(x_t | x_<t) that mixture's.

    Other models are built on the network, `network.GPTNetwork`; `best.network` is the one that was kept.

    Source: A. Radford, J. Wu, R. Child, D. Luan, D. Amodei, I. Sutskever, "Language Models are Unsupervised Multitask
    Learners", 2019.

    Raises:
        UserError: The heads do not divide the features; or the task has not as many classes as `num_classes` says.
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
        num_classes: int = Field(ge=0)
        """Classes of the task that sequences are conditioned on, each with a start of its own; 0 for none."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        c = config
        if c.dim % c.num_heads:
            raise UserError(f"num_heads={c.num_heads} does not divide dim={c.dim}")
        self.network = GPTNetwork(
            space.vocab_size,
            space.max_length,
            num_layers=c.num_layers,
            dim=c.dim,
            num_heads=c.num_heads,
            dropout=c.dropout,
            num_starts=c.num_classes,
        )
        self.best = Best(self.network)
        self.class_counts: Tensor  # of the sequences that were trained on
        self.register_buffer("class_counts", torch.zeros(c.num_classes, dtype=torch.float64))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        if c.num_classes and data.num_classes != c.num_classes:
            raise UserError(
                f"num_classes={c.num_classes}, and the task's sequences have {data.num_classes or 'no'} classes here"
                + (f": set num_classes={data.num_classes}" if data.num_classes else "")
            )
        adam = adamw(self.network, c, betas=(0.9, 0.95))
        held_out = data.validation[:VALIDATION_ROWS]

        def with_classes(num: int, rng: Generator) -> Tensor:
            assert data.draw_labelled is not None
            x, classes = data.draw_labelled(num, rng)
            return torch.cat([classes[:, None], x], 1)

        def training_step(x: Tensor, step: Step) -> None:
            classes = None
            if c.num_classes:
                classes, x = x[:, 0], x[:, 1:]
                self.class_counts += classes.bincount(minlength=c.num_classes)
            step.minimize(nats_per_token(self.network, x, classes), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        draw_batch, schedule = with_classes if c.num_classes else None, one_cycle(c.warm_up)
        num = sequences_per_step(c, held_out)
        return [Gradient("fit", c.num_steps, num, {"main": adam}, training_step, draw_batch, schedule)]

    @full_precision()
    def _validate(self, x: Tensor) -> None:
        self.network.eval()
        log_p = self._token_log_prob(self.network, x)
        self.network.train()
        self.best.offer(self.network, -log_p.double().sum() / (x != PAD).sum())

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t) in nats of sequences x (B, T), exact, (B, T); 0 where x is padding."""
        self.best.eval()
        return self._token_log_prob(self.best.network, x)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of sequences x (B, T), exact, (B,)."""
        return self.token_log_prob(x).double().sum(1).float()

    @torch.no_grad()
    def sample(self, num: int, *, given: Tensor | None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T), of the classes `given` (num,) if the model was trained with classes.

        Raises:
            MissingCapability: Classes are given to a model without.
        """
        c, space = self.config, self.space
        if given is not None and not c.num_classes:
            raise MissingCapability("this model was trained without classes (the preset guided has them)")
        start = torch.zeros(num, dtype=torch.long, device=self.device)
        if c.num_classes:
            if given is None:
                given = torch.multinomial(self._class_shares().to(rng.device), num, replacement=True, generator=rng)
            start = space.vocab_size + given.to(self.device)
        self.best.eval()
        end = space.EOS if space.ends else None
        x = torch.cat([
            generate(self.best.network, part[:, None], space.max_length, by_quantiles(len(part), rng), end=end)
            for part in start.split(ROWS)
        ])  # fmt: skip
        return finished(x) if space.ends else x

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of the last features over the positions of sequences x (B, T), (B, d); over the classes too,
        weighted by p(class | x), if there are such."""
        self.best.eval()
        network = self.best.network
        if not self.config.num_classes:
            return mean_states(states_of(network, x), x, TOKENS)
        log_joint = self._log_joint(network, x).sum(2) + self._class_shares().log()[:, None]  # (C, B)
        weights = log_joint.softmax(0).float()
        features = torch.stack([mean_states(states_of(network, x, one), x, TOKENS) for one in self._every_class(x)])
        return (weights[:, :, None] * features).sum(0)

    def _token_log_prob(self, network: GPTNetwork, x: Tensor) -> Tensor:
        if not self.config.num_classes:
            return score(network, x)
        log_joint = self._class_shares().log()[:, None, None] + self._log_joint(network, x).cumsum(2)
        so_far = torch.logsumexp(log_joint, 0)  # (B, T): log p(x_1 … x_t)
        before = torch.cat([torch.zeros_like(so_far[:, :1]), so_far[:, :-1]], 1)
        return ((so_far - before) * (x != PAD)).to(network.output.dtype)

    def _log_joint(self, network: GPTNetwork, x: Tensor) -> Tensor:
        """log p(x_t | x_<t, c) of every class, (C, B, T), float64."""
        return torch.stack([score(network, x, one).double() for one in self._every_class(x)])

    def _every_class(self, x: Tensor) -> list[Tensor]:
        return [torch.full((len(x),), c, device=x.device) for c in range(self.config.num_classes)]

    def _class_shares(self) -> Tensor:
        """p(c), (C,); equal before training."""
        counts = self.class_counts if bool(self.class_counts.any()) else torch.ones_like(self.class_counts)
        return counts / counts.sum()


def nats_per_token(network: GPTNetwork, x: Tensor, classes: Tensor | None = None) -> Tensor:
    """Minus log p of sequences x (B, T) given their classes (B,) if there are such, averaged over tokens: a scalar."""
    features, places = token_states(states_of(network, x, classes), x, TOKENS)
    return total_nll(network.logits(features), x.flatten()[places]) / len(places)


@torch.no_grad()
def score(network: GPTNetwork, x: Tensor, classes: Tensor | None = None) -> Tensor:
    """log p(x_t | x_<t) in nats of sequences x (B, T) given their classes (B,) if there are such, (B, T)."""
    features, places = token_states(states_of(network, x, classes), x, TOKENS)
    return placed(token_log_probs(features, network.output, x.flatten()[places]), places, x)


def states_of(network: GPTNetwork, x: Tensor, classes: Tensor | None = None) -> States:
    """The features from which the tokens of rows of x are predicted."""

    def states(rows: Tensor, part: Tensor) -> Tensor:
        read = shifted(part)
        if classes is not None:
            read[:, 0] = network.vocab_size + classes[rows]
        return network.hidden(read)

    return states
