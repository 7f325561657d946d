"""The variational autoencoder of token sequences with recurrent networks, and the remedies for its collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.errors import UserError
from gmbench.metrics.mutual_information import mutual_information
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.randomness import stream
from gmbench.samplers.noise import uniforms
from gmbench.spaces import TokenSequence
from gmbench.training import Call, Gradient, Stage, Step, cosine

from ...autoregressive.ragged import length_blocks
from ...autoregressive.vocabulary import draw
from ...precision import full_precision
from ...tokens import require_no_condition, trimmed
from ..best import Best
from ..bits import normals
from ..kl import free_bits, gaussian_kl
from ..schedules import Annealing, kl_weight
from .aggressive import Aggressive, at_rest
from .network import SequencePair
from .plateau import Plateau

VALIDATION_ROWS = 1000
TOKENS = 2**16  # tokens of one pass outside training, padding included
ROWS = 1024  # sequences that are generated together


class LSTMVAE(Model):
    """p(x) = E_{z ~ N(0, I)} Π_t p(x_t | x_<t, z) with an LSTM as decoder, and a diagonal Gaussian q(z | x) by another.

    z enters the decoder twice: as its first state, and beside every input word. Trained on the evidence lower bound of
    a sentence (one latent each, the KL term analytic), in nats averaged over sentences, never divided by their lengths.
    A decoder that reads the words before can do without z; then KL is 0 and the model an LSTM. Against that the
    literature has: a KL term whose weight rises, once or in cycles; nats that cost nothing, in every latent or in all
    together; words withheld from the decoder; encoders that catch up before every step of the decoder; a start as an
    autoencoder without the KL term, whose decoder is then thrown away. All are options, and presets of the card.

    Every `validate_every` steps at which the KL term has its full weight (and at the last step) the evidence lower
    bound of validation sentences, each with the same noise at every look, decides whether the present weights become
    the model.

    Sources: S. R. Bowman et al., "Generating Sentences from a Continuous Space", 2016, arXiv 1511.06349; the decoder's
    form: J. He et al., "Lagging Inference Networks and Posterior Collapse in Variational Autoencoders", 2019, arXiv
    1901.05534; cycles: H. Fu et al., 2019, arXiv 1903.10145; the start as an autoencoder: B. Li et al., "A Surprisingly
    Effective Fix for Deep Latent Variable Modeling of Text", 2019, arXiv 1909.00868.

    Raises:
        UserError: Both `free_bits` and `target_kl` are asked for.
    """

    class Config(BaseConfig):
        latent_dim: int = Field(ge=1)
        """Numbers in a latent, Z."""
        embedding: int = Field(ge=1)
        """Numbers that a word becomes, in either network."""
        hidden: int = Field(ge=1)
        """Units of either LSTM."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which the decoder's embedded words and its states before the output layer are dropped."""
        word_dropout: float = Field(ge=0, le=1)
        """Probability with which a word is withheld from the decoder that reads it to predict the next."""
        init_width: float = Field(ge=0)
        """Parameters start uniform in ± this, embeddings in ± ten times this; 0 for torch's own start."""
        annealing: Annealing
        """How the KL term's weight moves: 1 throughout, once from 0 to 1, or so in cycles."""
        num_cycles: int = Field(ge=1)
        """Cycles of the KL term's weight; unused unless `cyclical`."""
        ramp: float = Field(gt=0, le=1)
        """Share of a cycle in which the KL term's weight rises; unused where it is 1 throughout."""
        free_bits: float = Field(ge=0)
        """Nats that each latent may carry, on average over a batch, without a cost."""
        target_kl: float = Field(ge=0)
        """Nats that all latents together may carry, on average over a batch, without a cost; 0 for none."""
        autoencoder: float = Field(ge=0, lt=1)
        """Share of the steps that come first and are without the KL term; then the decoder starts anew. 0 for none."""
        inner_steps: int = Field(ge=0)
        """Steps of the encoder alone, at most, before each of the decoder, in the aggressive phase; 0 for no such."""
        window: int = Field(ge=1)
        """Steps over which the encoder's loss is averaged to see whether it falls; unused without inner steps."""
        num_steps: int = Field(ge=1)
        """Gradient steps in all, those of the encoder alone and those as an autoencoder among them."""
        batch_size: int = Field(ge=1)
        """Training sentences a step."""
        optimizer: Literal["adam", "sgd"]
        """Adam, or plain stochastic gradient descent."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate."""
        schedule: Literal["cosine", "plateau"]
        """How it falls: to 0 along half a cosine, or to its half when the validation bound has stopped rising."""
        patience: int = Field(ge=1)
        """Looks without a better bound before the learning rate is halved; unused unless `plateau`."""
        hold: float = Field(ge=0, le=1)
        """Share of training before which the learning rate is not halved; unused unless `plateau`."""
        clip: float = Field(gt=0)
        """Largest norm of the gradient."""
        validate_every: int = Field(ge=1)
        """Steps between looks at the validation sentences."""

    space: TokenSequence

    def __init__(self, config: Any, space: TokenSequence) -> None:
        super().__init__(config, space)
        c = config
        if c.free_bits and c.target_kl:
            raise UserError("free_bits and target_kl both make nats free: set one of them to 0")
        self.network = SequencePair(
            space.vocab_size,
            latent_dim=c.latent_dim,
            embedding=c.embedding,
            hidden=c.hidden,
            dropout=c.dropout,
            init_width=c.init_width,
        )
        self.best = Best(self.network)
        self.aggressive = Aggressive(c.inner_steps, c.window)
        self.plateau = Plateau(c.patience, c.hold)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        held_out = data.validation[:VALIDATION_ROWS]
        noise = torch.randn(1, len(held_out), c.latent_dim, generator=stream("latent/validation"))

        def autoencoder_step(x: Tensor, step: Step) -> None:
            step.minimize(self.loss(trimmed(x), 0.0, step.rng), clip=c.clip)

        def training_step(x: Tensor, step: Step) -> None:
            weight = kl_weight(step.fraction, c.annealing, num_cycles=c.num_cycles, ramp=c.ramp)
            resting = self.aggressive.resting(self.network.encoder, self.network.decoder)
            with at_rest(resting):
                loss = self.loss(trimmed(x), weight, step.rng)
                step.minimize(loss, clip=c.clip)
            self.aggressive.stepped(loss)
            last = step.index + 1 == step.num_steps
            if (step.index + 1) % c.validate_every == 0 or last:
                # weights that were trained for less than the bound are on their way elsewhere
                self._look(held_out.to(x.device), noise.to(x.device), step, candidate=weight == 1 or last)

        def schedule(fraction: float) -> float:
            return cosine(fraction) if c.schedule == "cosine" else self.plateau.factor

        num_first = min(round(c.autoencoder * c.num_steps), c.num_steps - 1)
        first: list[Stage] = []
        if num_first:
            optimizers = {"main": self._optimizer()}
            first = [
                Gradient("autoencoder", num_first, c.batch_size, optimizers, autoencoder_step),
                Call("new decoder", lambda rng: self.network.restart(self.network.decoder)),
            ]
        num, optimizers = c.num_steps - num_first, {"main": self._optimizer()}
        return [*first, Gradient("fit", num, c.batch_size, optimizers, training_step, schedule=schedule)]

    def loss(self, x: Tensor, weight: float, rng: Generator) -> Tensor:
        """What a step minimises on sentences x (B, T), a scalar in nats a sentence: -E_q log p(x | z) + weight · KL."""
        c = self.config
        noise = normals((len(x), c.latent_dim), self.network.decoder.start.weight, rng)
        nll, kls = torch.zeros((), device=x.device), []
        for rows, length in length_blocks(x, x.numel()):  # rows of like length together: little of it is padding
            part = x[rows, :length]
            mean, log_std = self.network.posterior(part)
            z = mean + log_std.exp() * noise[rows]
            nll = nll + self.network.decoder.nll(part, z, word_dropout=c.word_dropout, rng=rng)
            kls.append(gaussian_kl(mean, log_std))
        nll = nll / len(x)
        if weight == 0:
            return nll
        kl = torch.cat(kls)  # (B, Z)
        total = kl.sum(1).mean().clamp(min=c.target_kl) if c.target_kl else free_bits(kl, c.free_bits)
        return nll + weight * total

    def _optimizer(self) -> torch.optim.Optimizer:
        c = self.config
        if c.optimizer == "sgd":
            return torch.optim.SGD(self.network.parameters(), c.learning_rate)
        return torch.optim.Adam(self.network.parameters(), c.learning_rate, fused=True)

    @torch.no_grad()
    @full_precision()
    def _look(self, x: Tensor, noise: Tensor, step: Step, *, candidate: bool) -> None:
        self.network.eval()
        mean, log_std = self._posterior(self.network, x)
        z = mean + log_std.exp() * noise  # (1, M, Z)
        loss = (gaussian_kl(mean, log_std).sum(1) - self._log_likelihood(self.network, x, z)[0]).double().mean()
        if candidate:
            self.best.offer(self.network, loss)
            self.plateau.looked(loss, step.fraction)
        if self.aggressive.going_on:
            q = Independent(Normal(mean.cpu(), log_std.exp().cpu()), 1)
            self.aggressive.looked(mutual_information(q, rng=stream("latent/information")).lower.value)
        self.network.train()

    def prior(self) -> Distribution:
        """N(0, I) on the latents (Z,)."""
        zero = torch.zeros(self.config.latent_dim, device=self.device)
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x), a diagonal Gaussian of batch shape (B,) and event shape (Z,), for sequences x (B, T)."""
        mean, log_std = self._posterior(self.best.network, x)
        return Independent(Normal(mean, log_std.exp()), 1)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B), exact, of sequences x (B, T) and latents z (K, B, Z)."""
        self.best.eval()
        return self._log_likelihood(self.best.network, x, z)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Sequences (B, T) given latents z (B, Z): the likeliest word after the likeliest before it, and so on."""
        return self._generate(z, lambda logits: logits.argmax(1) + 1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean (B, Z) of sequences x (B, T)."""
        return self._posterior(self.best.network, x)[0]

    def reconstruct(self, x: Tensor) -> Tensor:
        """The sequences (B, T) that the posterior means of sequences x (B, T) are decoded to."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T): latents from the prior, then word after word.

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        z = normals((num, self.config.latent_dim), self.network.decoder.start.weight, rng)
        return self._generate(z, lambda logits: draw(logits, uniforms((len(logits),), logits, rng)))

    def _generate(self, z: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
        self.best.eval()
        decoder, space = self.best.network.decoder, self.space
        blocks = z.split(ROWS)
        return torch.cat([decoder.generate(some, space.max_length, choose, ends=space.ends) for some in blocks])

    def _posterior(self, network: SequencePair, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.empty(len(x), self.config.latent_dim, device=x.device)
        log_std = torch.empty_like(mean)
        for rows, length in length_blocks(x, TOKENS):
            mean[rows], log_std[rows] = network.posterior(x[rows, :length])
        return mean, log_std

    def _log_likelihood(self, network: SequencePair, x: Tensor, z: Tensor) -> Tensor:
        found = z.new_empty(z.shape[:2])
        many = max(1, min(len(z), TOKENS // x.shape[1]))  # latents of a sentence in one pass
        for rows, length in length_blocks(x, TOKENS // many):
            for first in range(0, len(z), many):
                some = slice(first, first + many)
                found[some, rows] = network.decoder.log_likelihood(x[rows, :length], z[some, rows])
        return found
