"""The variational autoencoder on bits, trained by the evidence lower bound or the importance weighted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.errors import UserError
from gmbench.model import Data, Model
from gmbench.randomness import stream
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .. import bits
from ..best import Best
from ..networks import NetworkConfig
from ..schedules import Annealing, eight_phases, kl_weight
from .network import VariationalPair

VALIDATION_ROWS = 1000
VALIDATION_SAMPLES = 16  # the same latents' noise at every look, so that looks differ by the weights alone


class VAE(Model):
    """p(x) = E_{z ~ N(0, I)} prod_i Bernoulli(x_i; decoder(z)), with a diagonal Gaussian q(z | x) by the encoder.

    Both are trained on a lower bound of log p(x): the evidence lower bound, or the importance weighted bound of K
    latents. Every `validate_every` steps the importance weighted bound of validation points (16 latents each) decides
    whether the present weights become the model. The decoder's bias starts at the log odds of the data's means.

    Sources: D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013, arXiv 1312.6114; the KL term's weight:
    H. Fu et al., "Cyclical Annealing Schedule", 2019, arXiv 1903.10145; its floor: D. P. Kingma et al., "Improving
    Variational Inference with Inverse Autoregressive Flow", 2016, arXiv 1606.04934.
    """

    class Config(NetworkConfig):
        bound: Literal["elbo", "iwae"]
        """The bound that is maximised: the evidence lower bound, or the importance weighted one."""
        num_samples: int = Field(ge=1)
        """Latents drawn for each training point, K: `elbo` averages over them, `iwae` weights them."""
        annealing: Annealing
        """How the weight of the KL term (of `iwae`: of log p(z) - log q(z | x)) moves: 1 throughout, once from 0 to 1,
        or so in cycles."""
        num_cycles: int = Field(ge=1)
        """Cycles of the KL term's weight; unused unless `cyclical`."""
        ramp: float = Field(gt=0, le=1)
        """Share of a cycle in which the KL term's weight rises; unused where it is 1 throughout."""
        free_bits: float = Field(ge=0)
        """Nats that each latent may carry, on average over a batch, without a cost in the evidence lower bound."""
        num_steps: int = Field(ge=1)
        """Gradient steps."""
        batch_size: int = Field(ge=1)
        """Training points a step."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate of Adam."""
        schedule: Literal["cosine", "eight_phases"]
        """How the learning rate falls: to 0 along half a cosine, or to a tenth in eight phases of growing length."""
        adam_epsilon: float = Field(gt=0)
        """What Adam adds to the root of the second moment; gradients are of nats averaged over the batch."""
        validate_every: int = Field(ge=1)
        """Steps between looks at the validation bound."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        if config.free_bits and config.bound == "iwae":
            raise UserError("free_bits is a floor of the KL term, which the importance weighted bound does not have")
        self.network = VariationalPair(config, space)
        self.best = Best(self.network)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.network.parameters(), c.learning_rate, eps=c.adam_epsilon, fused=True)
        schedule = cosine if c.schedule == "cosine" else eight_phases
        held_out = data.validation[:VALIDATION_ROWS]
        noise = torch.randn(VALIDATION_SAMPLES, len(held_out), c.latent_dim, generator=stream("latent/validation"))

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(-self.bound(x, step))
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device), noise.to(x.device))

        return [
            Gradient("start", 1, 1000, {}, self._start),
            Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, training_step, schedule=schedule),
        ]

    @torch.no_grad()
    def _start(self, batch: Tensor, step: Step) -> None:
        self.network.decoder.bias.copy_(bits.log_odds(batch))

    @torch.no_grad()
    def _validate(self, x: Tensor, noise: Tensor) -> None:
        many = bits.ROWS // VALIDATION_SAMPLES
        blocks = zip(x.split(many), noise.split(many, 1), strict=True)
        total = sum(len(rows) * self.network.importance_bound(rows, draws).double() for rows, draws in blocks)
        self.best.offer(self.network, -total / len(x))

    def bound(self, x: Tensor, step: Step) -> Tensor:
        """What a training step maximises on a batch x (B, D): a scalar, nats."""
        c = self.config
        noise = bits.normals((c.num_samples, len(x), c.latent_dim), x, step.rng)
        weight = kl_weight(step.fraction, c.annealing, num_cycles=c.num_cycles, ramp=c.ramp)
        if c.bound == "iwae":
            return self.network.importance_bound(x, noise, kl_weight=weight)
        return self.network.elbo(x, noise, kl_weight=weight, floor=c.free_bits)

    def prior(self) -> Distribution:
        """N(0, I) on the latents (Z,)."""
        zero = torch.zeros(self.config.latent_dim, device=self.device)
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x), a diagonal Gaussian of batch shape (B,) and event shape (Z,), for bits x (B, D)."""
        parts = [self.best.network.posterior(rows) for rows in x.split(bits.ROWS)]
        mean, log_std = (torch.cat(one) for one in zip(*parts, strict=True))
        return Independent(Normal(mean, log_std.exp()), 1)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B), exact, of bits x (B, D) and latents z (K, B, Z)."""
        found = z.new_empty(z.shape[:2])
        for begin in range(0, len(x), bits.ROWS):
            end = min(begin + bits.ROWS, len(x))
            many = max(1, bits.ROWS // (end - begin))  # latents of each point in one pass
            for first in range(0, len(z), many):
                some = slice(first, first + many)
                found[some, begin:end] = self.best.network.log_likelihood(x[begin:end], z[some, begin:end])
        return found

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The probabilities (B, D) of ones given latents z (B, Z)."""
        return bits.in_blocks(lambda rows: self.best.network.decoder(rows).sigmoid(), z)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean (B, Z) of bits x (B, D)."""
        return bits.in_blocks(lambda rows: self.best.network.posterior(rows)[0], x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The probabilities (B, D) of ones at the posterior mean of bits x (B, D)."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D): latents from the prior, then every bit."""
        like = self.best.network.decoder.bias
        draws = []
        for size in bits.block_sizes(num):
            z = bits.normals((size, self.config.latent_dim), like, rng)
            draws.append(bits.draw(self.best.network.decoder(z), rng))
        return torch.cat(draws)
