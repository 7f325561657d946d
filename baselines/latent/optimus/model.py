"""Optimus: a variational autoencoder of token sequences with BERT as encoder and GPT as decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.errors import UserError
from gmbench.model import Data, Model
from gmbench.randomness import stream
from gmbench.spaces import TokenSequence
from gmbench.training import Gradient, Stage, Step

from ...autoregressive.fitting import FitConfig, adamw, one_cycle, sequences_per_step
from ...autoregressive.ragged import length_blocks
from ...autoregressive.vocabulary import Choose, by_quantiles
from ...precision import full_precision
from ...tokens import require_no_condition
from ..best import Best
from ..bits import normals
from ..kl import gaussian_kl
from ..schedules import Annealing
from .network import OptimusNetwork
from .objective import beta, thresholded
from .pretrained import pretrained

VALIDATION_ROWS = 1000
TOKENS = 8192  # tokens of one pass, padding included: what a block makes of them stays in the cache
ROWS = 1024  # sequences that are generated together


class Optimus(Model):
    """p(x) = E_{z ~ N(0, I)} Π_t p(x_t | x_<t, z) with GPT as decoder, and a diagonal Gaussian q(z | x) by BERT.

    z enters the decoder as memory, a key and value of every block to which all positions may attend, and as embedding,
    added to that of every token; or in one of these ways. Trained on E_q log p(x | z) - beta · KL in nats averaged over
    sentences, never divided by their lengths: with beta = 1 and no threshold that is the evidence lower bound. beta is
    0 for half of training, rises for a quarter, and stays at 1; latents whose KL is under a threshold cost nothing.

    Every `validate_every` steps at which beta is 1 (and at the last step) the evidence lower bound of validation
    sentences, all of their nats counted and each with the same noise at every look, decides whether the present
    weights become the model.

    Encoder and decoder begin with random weights, or with those of a `bert` and a `gpt` that were trained before
    (inputs `encoder` and `decoder`, of the same sizes).

    Source: C. Li, X. Gao, Y. Li, B. Peng, X. Li, Y. Zhang, J. Gao, "Optimus: Organizing Sentences via Pre-trained
    Modeling of a Latent Space", 2020, arXiv 2004.04092.

    Raises:
        UserError: z enters in neither way; the heads do not divide the features; or the weight of the KL term has no
            time to rise.
    """

    class Config(FitConfig):
        latent_dim: int = Field(ge=1)
        """Numbers in a latent, Z."""
        num_layers: int = Field(ge=1)
        """Blocks, of encoder and decoder alike."""
        dim: int = Field(ge=1)
        """Features of a position; perceptrons have four times as many units."""
        num_heads: int = Field(ge=1)
        """Attention heads of a block; they share out the features."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which a feature of the embeddings, or of what a part of a block adds, is dropped."""
        memory: bool
        """Whether the latent is a key and a value in every block of the decoder."""
        embedding: bool
        """Whether the latent is added to the embeddings of the decoder's tokens."""
        annealing: Annealing
        """How the KL term's weight moves: 1 throughout, once from 0 to 1, or so in cycles."""
        num_cycles: int = Field(ge=1)
        """Cycles of the KL term's weight; unused unless `cyclical`."""
        zero: float = Field(ge=0, lt=1)
        """Share of a cycle in which the KL term's weight is 0; unused where it is 1 throughout."""
        ramp: float = Field(gt=0, le=1)
        """Share of a cycle, after that, in which it rises to 1; unused where it is 1 throughout."""
        free_bits: float = Field(ge=0)
        """Nats of a latent and sentence up to which they have no cost, and so no gradient; 0 for none."""

    space: TokenSequence

    def __init__(self, config: Any, space: TokenSequence) -> None:
        super().__init__(config, space)
        c = config
        if not (c.memory or c.embedding):
            raise UserError("memory=false and embedding=false keep the latent from the decoder: set one to true")
        if c.dim % c.num_heads:
            raise UserError(f"num_heads={c.num_heads} does not divide dim={c.dim}")
        if c.annealing != "none" and c.zero + c.ramp > 1:
            raise UserError(f"zero={c.zero} and ramp={c.ramp} are shares of one cycle: their sum must not exceed 1")
        self.network = OptimusNetwork(
            space.vocab_size,
            space.max_length,
            latent_dim=c.latent_dim,
            num_layers=c.num_layers,
            dim=c.dim,
            num_heads=c.num_heads,
            dropout=c.dropout,
            memory=c.memory,
            embedding=c.embedding,
        )
        self.best = Best(self.network)

    def warm_start(self, name: str, parent: Model) -> None:
        """Takes all weights of a fitted `bert` as `encoder`, or of a fitted `gpt` as `decoder`.

        What those lack (the map to the posterior, and the ways of z into the decoder) stays random, and small. Without
        memory the decoder's first likelihoods are therefore nearly those of the `gpt`; as memory even z = 0 takes part
        of every position's attention.

        Raises:
            UserError: The name is another, or the parent does not fit.
        """
        weights = pretrained(name, parent, self).state_dict()
        for network in (self.network, self.best.network):
            part = network.encoder.bert if name == "encoder" else network.decoder.gpt
            part.load_state_dict(weights)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = adamw(self.network, c)
        held_out = data.validation[:VALIDATION_ROWS]
        noise = torch.randn(1, len(held_out), c.latent_dim, generator=stream("latent/validation"))

        def training_step(x: Tensor, step: Step) -> None:
            weight = beta(step.fraction, c.annealing, num_cycles=c.num_cycles, zero=c.zero, ramp=c.ramp)
            step.minimize(self.loss(x, weight, step.rng), clip=c.clip)
            last = step.index + 1 == step.num_steps
            if (weight == 1 and (step.index + 1) % c.validate_every == 0) or last:
                # weights that were trained for less than the bound are on their way elsewhere
                self._validate(held_out.to(x.device), noise.to(x.device))

        num, schedule = sequences_per_step(c, held_out), one_cycle(c.warm_up)
        return [Gradient("fit", c.num_steps, num, {"main": adam}, training_step, schedule=schedule)]

    def loss(self, x: Tensor, weight: float, rng: Generator) -> Tensor:
        """What a step minimises on sentences x (B, T), a scalar in nats a sentence: -E_q log p(x | z) + weight · KL,
        of which what is under the threshold is left out."""
        encoder, decoder = self.network.encoder, self.network.decoder
        noise = normals((len(x), self.config.latent_dim), encoder.head.weight, rng)
        nll, kls = torch.zeros((), device=x.device), []
        for rows, length in length_blocks(x, TOKENS):  # rows of like length together: little of it is padding
            part = x[rows, :length]
            mean, log_std = encoder(part)
            nll = nll + decoder.nll(part, mean + log_std.exp() * noise[rows])
            kls.append(gaussian_kl(mean, log_std))
        nll = nll / len(x)
        return nll + weight * thresholded(torch.cat(kls), self.config.free_bits) if weight else nll

    @torch.no_grad()
    @full_precision()
    def _validate(self, x: Tensor, noise: Tensor) -> None:
        self.network.eval()
        mean, log_std = self._posterior(self.network, x)
        z = mean + log_std.exp() * noise  # (1, M, Z)
        loss = gaussian_kl(mean, log_std).sum(1) - self._log_likelihood(self.network, x, z)[0]
        self.best.offer(self.network, loss.double().mean())
        self.network.train()

    def prior(self) -> Distribution:
        """N(0, I) on the latents (Z,)."""
        zero = torch.zeros(self.config.latent_dim, device=self.device)
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x), a diagonal Gaussian of batch shape (B,) and event shape (Z,), for sequences x (B, T)."""
        self.best.eval()
        mean, log_std = self._posterior(self.best.network, x)
        return Independent(Normal(mean, log_std.exp()), 1)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B), exact, of sequences x (B, T) and latents z (K, B, Z)."""
        self.best.eval()
        return self._log_likelihood(self.best.network, x, z)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Sequences (B, T) given latents z (B, Z): the likeliest token after the likeliest before it, and so on."""

        def likeliest(t: int, logits: Tensor, rows: Tensor) -> Tensor:
            return logits.argmax(1) + 1

        return torch.cat([self._generate(some, likeliest) for some in z.split(ROWS)])

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean (B, Z) of sequences x (B, T)."""
        self.best.eval()
        return self._posterior(self.best.network, x)[0]

    def reconstruct(self, x: Tensor) -> Tensor:
        """The sequences (B, T) that the posterior means of sequences x (B, T) are decoded to."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T): latents from the prior, then token after token.

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        z = normals((num, self.config.latent_dim), self.best.network.encoder.head.weight, rng)
        return torch.cat([self._generate(some, by_quantiles(len(some), rng)) for some in z.split(ROWS)])

    def _generate(self, z: Tensor, choose: Choose) -> Tensor:
        self.best.eval()
        return self.best.network.decoder.generate(z, self.space.max_length, choose, ends=self.space.ends)

    def _posterior(self, network: OptimusNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.empty(len(x), self.config.latent_dim, device=x.device)
        log_std = torch.empty_like(mean)
        for rows, length in length_blocks(x, TOKENS):
            mean[rows], log_std[rows] = network.encoder(x[rows, :length])
        return mean, log_std

    def _log_likelihood(self, network: OptimusNetwork, x: Tensor, z: Tensor) -> Tensor:
        found = z.new_empty(z.shape[:2])
        many = max(1, min(len(z), TOKENS // x.shape[1]))  # latents of a sentence in one pass
        for rows, length in length_blocks(x, TOKENS // many):
            for some in torch.arange(len(z)).split(many):
                found[some[:, None], rows] = network.decoder.log_likelihood(x[rows, :length], z[some][:, rows])
        return found
