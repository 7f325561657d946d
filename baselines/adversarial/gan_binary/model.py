"""A generative adversarial network on bits, its generator trained through sampled bits by the straight-through rule."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step

ROWS = 8192  # samples of one pass


class BinaryGAN(Model):
    """x ~ Bernoulli(sigmoid(G(z))), z ~ N(0, I), against a discriminator that sees bits only, true or generated.

    The generator's loss is the non-saturating -log sigmoid(D(x)). Its gradient passes through the sampled bits as if
    they were their probabilities (straight-through): it uses the slope of D at a corner of the cube in place of the
    difference that a flipped bit makes. So D must be nearly straight between corners, and the stabiliser is one that
    asks for that: the squared gradient of D at the data (R1), which spectral normalisation, a bound on the slope alone,
    would not keep small where D should be flat. The model is the generator's exponential moving average.

    Sources: I. Goodfellow et al., "Generative Adversarial Networks", 2014, arXiv 1406.2661; Y. Bengio, N. Léonard,
    A. Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013,
    arXiv 1308.3432; L. Mescheder, A. Geiger, S. Nowozin, "Which Training Methods for GANs do actually Converge?", 2018,
    arXiv 1801.04406 (R1).
    """

    class Config(BaseConfig):
        num_latents: Annotated[int, Field(ge=1)]
        """Normal latent variables."""
        hidden: Annotated[int, Field(ge=1)]
        """Units of every hidden layer of both networks."""
        num_layers: Annotated[int, Field(ge=1)]
        """Hidden layers of both networks."""
        r1: Annotated[float, Field(ge=0)]
        """Weight of half the mean squared gradient of the discriminator at the data, with respect to spins."""
        num_steps: Annotated[int, Field(ge=1)]
        """Steps, each one update of the discriminator and one of the generator."""
        batch_size: Annotated[int, Field(ge=1)]
        """Training points, and generated points, a step."""
        generator_rate: Annotated[float, Field(gt=0)]
        """Adam's learning rate for the generator."""
        discriminator_rate: Annotated[float, Field(gt=0)]
        """Adam's learning rate for the discriminator."""
        ema: Annotated[float, Field(ge=0, lt=1)]
        """Decay a step of the generator's moving average; while steps are few the average forgets faster."""

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        self.generator = perceptron(c.num_latents, c.hidden, c.num_layers, space.dim)
        self.discriminator = perceptron(space.dim, c.hidden, c.num_layers, 1)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), c.generator_rate, betas=(0.0, 0.99)),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), c.discriminator_rate, betas=(0.0, 0.99)),
        }
        return [Gradient("play", c.num_steps, c.batch_size, optimizers, self._play)]

    def _play(self, x: Tensor, step: Step) -> None:
        step.minimize(self.discriminator_loss(x, rng=step.rng), "discriminator")
        step.minimize(self.generator_loss(len(x), rng=step.rng), "generator")
        decay = min(self.config.ema, (step.index + 1) / (step.index + 10))
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)

    def generate(self, network: nn.Module, num: int, *, rng: Generator) -> Tensor:
        """`num` spins (num, D) of a generator; their gradient is that of their means tanh(l / 2)."""
        z = torch.randn(num, self.config.num_latents, generator=rng, device=rng.device).to(self.device)
        mean = torch.tanh(network(z) / 2)  # 2 sigmoid(l) - 1
        spins = torch.where(2 * uniforms(tuple(mean.shape), mean, rng) - 1 < mean, 1.0, -1.0)
        return spins + (mean - mean.detach())  # in this order the values stay exactly -1 and 1

    def discriminator_loss(self, x: Tensor, *, rng: Generator) -> Tensor:
        """Cross-entropy of telling data x (B, D) from as many generated points, and R1, in nats."""
        real = (2 * x - 1).requires_grad_()
        with torch.no_grad():
            fake = self.generate(self.generator, len(x), rng=rng)
        score_real, score_fake = self.discriminator(real), self.discriminator(fake)
        loss = softplus(-score_real).mean() + softplus(score_fake).mean()
        if self.config.r1:
            (slope,) = torch.autograd.grad(score_real.sum(), real, create_graph=True)
            loss = loss + self.config.r1 / 2 * slope.square().sum(1).mean()
        return loss

    def generator_loss(self, num: int, *, rng: Generator) -> Tensor:
        """-log P(the discriminator takes a generated point for data), averaged over `num` of them, in nats."""
        return softplus(-self.discriminator(self.generate(self.generator, num, rng=rng))).mean()

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D) of the averaged generator."""
        sizes = [ROWS] * (num // ROWS) + [num % ROWS] * (num % ROWS > 0)
        spins = torch.cat([self.generate(self.average, size, rng=rng) for size in sizes])
        return (spins > 0).to(torch.float32)


def perceptron(num_inputs: int, hidden: int, num_layers: int, num_outputs: int) -> nn.Sequential:
    """Hidden layers with leaky rectifiers of slope .2 and a linear output."""
    layers: list[nn.Module] = []
    for index in range(num_layers):
        layers += [nn.Linear(hidden if index else num_inputs, hidden), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(hidden, num_outputs))
