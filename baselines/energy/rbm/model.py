"""The restricted Boltzmann machine, trained by contrastive divergence with restarted or persistent chains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Harmonium, Model
from gmbench.samplers.chain import run_chain
from gmbench.samplers.kernel import Transition
from gmbench.samplers.noise import uniforms
from gmbench.samplers.target import Target
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, linear_decay

from ..sparsity import Draw, rows_of


class RBM(Model):
    """p(x) ~ sum_h exp(x'W h + b'x + c'h) on visible bits x and hidden bits h, so E(x) is the free energy.

    Updates follow E_data[grad log f] - E_chains[grad log f] with log f(x) = b'x + sum_j softplus(c_j + (W'x)_j). The
    chains make k block Gibbs steps from the batch itself (CD-k: biased, since they stay near the data) or go on from
    where the last update left them (PCD). W starts small and b at the log odds of the data's means.

    Sources: G. E. Hinton, "Training products of experts by minimizing contrastive divergence", 2002; T. Tieleman,
    "Training restricted Boltzmann machines using approximations to the likelihood gradient", 2008.
    """

    class Config(BaseConfig):
        num_hidden: int = Field(ge=1)
        """Hidden bits."""
        negatives: Literal["cd", "pcd"]
        """Where the chains of an update start: at the batch (`cd`) or where they were (`pcd`)."""
        sampling_steps: int = Field(ge=1)
        """Block Gibbs steps in an update (the k of CD-k)."""
        num_chains: int = Field(ge=1)
        """Persistent chains; unused by `cd`."""
        num_steps: int = Field(ge=1)
        """Updates."""
        batch_size: int = Field(ge=1)
        """Training points in an update."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate in the first half of the updates; it then falls linearly to zero."""
        weight_decay: float = Field(ge=0)
        """Weight of the squared norm of W, halved, in the loss."""
        sample_steps: int = Field(ge=1)
        """Block Gibbs steps from an independent start to each sample."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.weight = nn.Parameter(0.01 * torch.randn(space.dim, config.num_hidden))  # W
        self.visible_bias = nn.Parameter(torch.zeros(space.dim))  # b
        self.hidden_bias = nn.Parameter(torch.zeros(config.num_hidden))  # c
        self.start_prob: Tensor
        self.chains: Tensor
        self.register_buffer("start_prob", torch.full((space.dim,), 0.5))  # P(x_i = 1) where chains start
        self.register_buffer("chains", torch.zeros(config.num_chains, space.dim))

    def log_prob_unnormalised(self, x: Tensor) -> Tensor:
        """log f(x) (B,) of x (B, D): minus the free energy, in nats."""
        W, b, c = self.weight.to(x), self.visible_bias.to(x), self.hidden_bias.to(x)
        return x @ b + softplus(c + x @ W).sum(-1)

    def block_gibbs(self, x: Tensor, rng: Generator) -> Tensor:
        """x (B, D) after all hidden bits were drawn given it, and all visible bits given them."""
        W, b, c = self.weight.to(x), self.visible_bias.to(x), self.hidden_bias.to(x)
        h = _bernoulli(c + x @ W, rng)
        return _bernoulli(b + h @ W.T, rng)

    def sampler(self) -> BlockGibbs:
        """Block Gibbs sampling of this machine."""
        return BlockGibbs(self)

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.parameters(), lr=c.learning_rate)
        draw: Draw | None = None if data.train is None else rows_of(data.train)
        return [
            Gradient("start", 1, max(c.batch_size, 1000), {}, self._start, draw),
            Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, self._update, draw, linear_decay()),
        ]

    @torch.no_grad()
    def _start(self, batch: Tensor, step: Step) -> None:
        # the data's mean, kept off 0 and 1 so that log odds are finite
        self.start_prob.copy_(0.98 * batch.mean(0) + 0.01)
        self.visible_bias.copy_(torch.logit(self.start_prob))
        self.chains.copy_(self._starts(len(self.chains), step.rng))

    def _update(self, batch: Tensor, step: Step) -> None:
        c = self.config
        x = batch if c.negatives == "cd" else self.chains
        with torch.no_grad():
            for _ in range(c.sampling_steps):
                x = self.block_gibbs(x, step.rng)
            if c.negatives == "pcd":
                self.chains.copy_(x)
        gap = self.log_prob_unnormalised(x).mean() - self.log_prob_unnormalised(batch).mean()
        step.minimize(gap + c.weight_decay / 2 * self.weight.square().sum() if c.weight_decay else gap)
        step.log(loss=gap)

    def _starts(self, num: int, rng: Generator) -> Tensor:
        return _bernoulli(torch.logit(self.start_prob).expand(num, -1), rng)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` states (num, D) after `sample_steps` block Gibbs steps from independent bits with the data's means.

        The draws are independent; their law is the machine's only in the limit of many steps.
        """
        kernel = self.sampler()
        return run_chain(kernel, kernel.target, self._starts(num, rng), self.config.sample_steps, rng=rng).x

    def energy(self, x: Tensor) -> Tensor:
        """The free energy E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.log_prob_unnormalised(x)

    def harmonium(self) -> Harmonium:
        """The machine's parameters, detached."""
        return Harmonium(self.weight.detach(), self.visible_bias.detach(), self.hidden_bias.detach())

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """P(h_j = 1 | x) of every hidden bit, (B, H)."""
        return torch.sigmoid(self.hidden_bias.to(x) + x @ self.weight.to(x))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """P(x_i = 1 | h) at the means of the hidden bits, (B, D)."""
        return torch.sigmoid(self.visible_bias.to(x) + self.encode(x) @ self.weight.T.to(x))


@dataclass(frozen=True)
class FreeEnergy:
    """A machine's unnormalised density as a sampler's target."""

    rbm: RBM

    def log_prob(self, x: Tensor) -> Tensor:
        """Minus the free energy of x (B, D), (B,)."""
        return self.rbm.log_prob_unnormalised(x)


@dataclass(frozen=True)
class BlockGibbs:
    """The kernel x -> h -> x', reversible with respect to the machine's p(x).

    Arguments:
        rbm: The machine. The kernel knows no other distribution: the `target` given to a step must be this machine's
            density and is not evaluated.
    """

    rbm: RBM = field(repr=False)

    @property
    def target(self) -> FreeEnergy:
        """The distribution that the kernel leaves invariant."""
        return FreeEnergy(self.rbm)

    @torch.no_grad()
    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        """One step of x (B, D). It counts 2 evaluations: its two matrix products, where a free energy takes one."""
        return Transition(self.rbm.block_gibbs(x, rng), x.new_ones(()), 2)


def _bernoulli(logits: Tensor, rng: Generator) -> Tensor:
    u = uniforms(tuple(logits.shape), logits, rng)
    return (u < logits.sigmoid()).to(logits.dtype)
