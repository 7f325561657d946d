"""A convolutional energy of binary images, fitted by contrastive divergence with Gibbs with gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.samplers.chain import run_chain
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step

from .network import ResidualEnergy

ROWS = 2048  # chains that are moved together when sampling


class ResNetEBM(Model):
    """p(x) ~ f(x) = base(x) exp(g(x)), g a residual network, base a product of Bernoullis with the data's means.

    Updates follow E_data[grad log f] - E_negatives[grad log f]. The negatives are states of chains that Gibbs with
    gradients has moved by `sampling_steps` proposed flips from where `negatives` says:

    - `pcd`: from rows of a buffer, to which they return (persistent contrastive divergence with more chains than an
      update moves). The rows start as independent bits with the data's means and are never drawn anew;
    - `cd`: from the batch itself. No likelihood's gradient, since chains stay near the data;
    - `noise`: from independent bits with the data's means, anew in each update. What is learned is then the short chain
      as a generator, whose law need not be the energy's; samples are such chains.

    The fitted model is the exponential moving average of the weights.

    Sources: W. Grathwohl, K. Swersky, M. Hashemi, D. Duvenaud, C. J. Maddison, "Oops I took a gradient: scalable
    sampling for discrete distributions", 2021, arXiv 2102.04509; T. Tieleman, "Training restricted Boltzmann machines
    using approximations to the likelihood gradient", 2008; Y. Du, I. Mordatch, "Implicit generation and modeling with
    energy-based models", 2019, arXiv 1903.08689 (the buffer); E. Nijkamp, M. Hill, S.-C. Zhu, Y. N. Wu, "Learning
    non-convergent non-persistent short-run MCMC toward energy-based model", 2019, arXiv 1904.09770 (`noise`).
    """

    class Config(BaseConfig):
        channels: int = Field(ge=1)
        """Channels of every layer."""
        num_halvings: int = Field(ge=0)
        """Residual blocks that halve the image."""
        num_blocks: int = Field(ge=0)
        """Residual blocks after them."""
        base: bool
        """Whether the energy tilts a product of Bernoullis with the data's means, or a uniform base."""
        negatives: Literal["pcd", "cd", "noise"]
        """Where the chains of an update start: in the buffer, at the batch, or at independent bits."""
        buffer_size: int = Field(ge=1)
        """Persistent chains; at least the batch size for `pcd`, unused otherwise."""
        sampling_steps: int = Field(ge=1)
        """Proposed flips of each chain in an update."""
        num_steps: int = Field(ge=1)
        """Updates."""
        batch_size: int = Field(ge=1)
        """Training points in an update, and chains."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate after the warm-up."""
        warmup: float = Field(ge=0, lt=1)
        """Share of the updates in which the learning rate rises linearly from 0."""
        energy_l2: float = Field(ge=0)
        """Weight of E[g(x)^2] over data, and of that over chains, in the loss: keeps energies from growing."""
        average: float = Field(ge=0, lt=1)
        """Decay of the weights' exponential moving average in an update; 0 keeps the last weights."""
        sample_steps: int = Field(ge=1)
        """Proposed flips from an independent start to each sample; `noise` makes `sampling_steps` instead."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        self.net = ResidualEnergy(space.layout, space.dim, c.channels, c.num_halvings, c.num_blocks)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False)
        self.start_prob: Tensor
        self.chains: Tensor
        self.register_buffer("start_prob", torch.full((space.dim,), 0.5))  # P(x_i = 1) where chains start
        num_chains = max(c.buffer_size, c.batch_size) if c.negatives == "pcd" else 0
        self.register_buffer("chains", torch.zeros(num_chains, space.dim))

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.net.parameters(), lr=c.learning_rate)
        return [
            Gradient("start", 1, max(c.batch_size, 5000), {}, self._start),
            Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, self._update, schedule=_rise(c.warmup)),
        ]

    @torch.no_grad()
    def _start(self, batch: Tensor, step: Step) -> None:
        # the data's mean, kept off 0 and 1 so that log odds are finite
        self.start_prob.copy_(0.98 * batch.mean(0) + 0.01)
        if self.config.base:
            for net in (self.net, self.averaged):
                net.base_logits.copy_(torch.logit(self.start_prob))
        self.chains.copy_(self._starts(len(self.chains), step.rng))

    def _update(self, batch: Tensor, step: Step) -> None:
        c = self.config
        rows: Tensor | None = None
        if c.negatives == "pcd":
            rows = torch.randperm(len(self.chains), generator=step.rng, device=step.rng.device)[: len(batch)]
            starts = self.chains[rows]
        else:
            starts = batch if c.negatives == "cd" else self._starts(len(batch), step.rng)
        run = run_chain(self.sampler(), self.net, starts, c.sampling_steps, rng=step.rng)
        if rows is not None:
            self.chains[rows] = run.x
        both = torch.cat([batch, run.x])
        g = self.net(both)
        log_f = g + both @ self.net.base_logits
        gap = log_f[len(batch) :].mean() - log_f[: len(batch)].mean()
        step.minimize(gap + 2 * c.energy_l2 * g.square().mean() if c.energy_l2 else gap)
        with torch.no_grad():
            for average, weight in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
                average.lerp_(weight, 1 - c.average)
        step.log(loss=gap, accept=run.accept_rate)

    def _starts(self, num: int, rng: Generator) -> Tensor:
        u = uniforms((num, len(self.start_prob)), self.start_prob, rng)
        return (u < self.start_prob).to(self.start_prob.dtype)

    def sampler(self) -> GibbsWithGradients:
        """One proposed flip a step, from the first-order estimate of every flip's effect."""
        return GibbsWithGradients()

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` states (num, D) of chains from independent bits with the data's means; see the config for their length.

        The draws are independent; their law is the model's only in the limit of many steps.
        """
        c, drawn = self.config, []
        num_steps = c.sampling_steps if c.negatives == "noise" else c.sample_steps
        for begin in range(0, num, ROWS):
            start = self._starts(min(ROWS, num - begin), rng)
            drawn.append(run_chain(self.sampler(), self.averaged, start, num_steps, rng=rng).x)
        return torch.cat(drawn)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.averaged.log_prob(x)


def _rise(warmup: float) -> Callable[[float], float]:
    """A schedule that rises linearly from 0 to 1 within the fraction `warmup`, and stays."""
    return lambda fraction: min(1.0, fraction / warmup) if warmup else 1.0
