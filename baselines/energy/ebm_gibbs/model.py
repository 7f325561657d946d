"""Energy-based models trained by persistent contrastive divergence: for any kernel, and with Gibbs sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.samplers.chain import run_chain
from gmbench.samplers.gibbs import GibbsSweep, RandomScanGibbs
from gmbench.samplers.kernel import Kernel
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, linear_decay

from ..energies import build_energy, couplings_of
from ..sparsity import Draw, Sparsity

Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class PersistentEBM(Model):
    """p(x) ~ f(x) = exp(-E(x)) fitted by maximum likelihood, with the model's expectations taken over chains.

    The gradient of the mean log-likelihood is E_data[grad log f] - E_model[grad log f]. The second term is an average
    over `num_chains` chains that a Markov kernel moves by `sampling_steps` between updates and that never start again.
    The learning rate is constant for half of the updates and then falls linearly to zero, which averages the noise of
    the chains out. A subclass names its kernel in `sampler`.

    Sources: T. Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood gradient",
    2008; L. Younes, "On the convergence of Markovian stochastic algorithms with rapidly decreasing ergodicity rates",
    1999.
    """

    class Config(BaseConfig):
        energy: Literal["quadratic", "mlp"]
        """`quadratic`: log f = s'Js with spins s = 2x - 1; `mlp`: a multilayer perceptron on bits."""
        hidden: int = Field(ge=1)
        """Width of the perceptron's hidden layers."""
        num_layers: int = Field(ge=1)
        """Number of the perceptron's hidden layers."""
        activation: Literal["elu", "swish"]
        """The perceptron's activation."""
        num_steps: int = Field(ge=1)
        """Updates of the energy (in the last fit, where l1 is `heldout`)."""
        path_steps: int = Field(ge=1)
        """Updates for each candidate penalty where l1 is `heldout`."""
        batch_size: int = Field(ge=1)
        """Training points in an update; all of a training set that has no more, so that the data's term is exact."""
        num_chains: int = Field(ge=1)
        """Persistent chains."""
        sampling_steps: int = Field(ge=1)
        """Steps of the kernel between two updates."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate in the first half of the updates."""
        betas: tuple[Decay, Decay]
        """Adam's decay rates of the gradient's moments."""
        energy_l2: float = Field(ge=0)
        """Weight of mean E^2 over data and chains in the loss: keeps energies from growing without limit."""
        l1: Literal["heldout"] | Annotated[float, Field(ge=0)]
        """Weight of sum_ij |J_ij| in the loss, at least 0, or `heldout`: chosen on held-out training rows."""
        sample_steps: int = Field(ge=1)
        """Steps of the kernel from an independent start to each sample."""
        sample_candidates: int = Field(ge=1)
        """Draws of the starting distribution among which each sample's start is chosen by importance."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.net = build_energy(config.energy, space.dim, config.hidden, config.num_layers, config.activation)
        self.sparsity = Sparsity(config.l1, self.net)
        self.start_prob: Tensor
        self.chains: Tensor
        self.register_buffer("start_prob", torch.full((space.dim,), 0.5))  # P(x_i = 1) where chains start
        self.register_buffer("chains", torch.zeros(config.num_chains, space.dim))

    def sampler(self) -> Kernel:
        """The Markov kernel of the negatives."""
        raise NotImplementedError

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        start = Gradient("start", 1, max(c.batch_size, 1000), {}, self._start_chains)
        return [
            start,
            *self.sparsity.stages(self.net, data, self._stage, num_steps=c.num_steps, path_steps=c.path_steps),
        ]

    def _stage(self, name: str, l1: Tensor, draw: Draw | None, num_steps: int) -> Gradient:
        c = self.config
        adam = torch.optim.Adam(self.net.parameters(), lr=c.learning_rate, betas=c.betas)

        def update(batch: Tensor, step: Step) -> None:
            self._move_chains(step)
            log_f_data, log_f_model = self.net.log_prob(batch), self.net.log_prob(self.chains)
            gap = log_f_model.mean() - log_f_data.mean()
            size = log_f_data.square().mean() + log_f_model.square().mean()
            step.minimize(gap + c.energy_l2 * size if c.energy_l2 else gap)
            self.sparsity.shrink(self.net, adam, l1)
            step.log(loss=gap)

        return Gradient(name, num_steps, c.batch_size, {"main": adam}, update, draw, linear_decay())

    @torch.no_grad()
    def _start_chains(self, batch: Tensor, step: Step) -> None:
        # the data's mean, kept off 0 and 1 so that any state may start
        self.start_prob.copy_(0.98 * batch.mean(0) + 0.01)
        self.chains.copy_(self._starts(len(self.chains), step.rng))

    @torch.no_grad()
    def _move_chains(self, step: Step) -> None:
        run = run_chain(self.sampler(), self.net, self.chains, self.config.sampling_steps, rng=step.rng)
        self.chains.copy_(run.x)
        step.log(accept=run.accept_rate)

    def _starts(self, num: int, rng: Generator) -> Tensor:
        u = uniforms((num, len(self.start_prob)), self.start_prob, rng)
        return (u < self.start_prob).to(self.start_prob.dtype)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` states (num, D) after `sample_steps` steps of the kernel, each from a start of its own.

        A start is drawn from independent bits with the data's means; of `sample_candidates` such draws one is kept with
        probability proportional to f / q (sampling importance resampling), which places starts in all modes of an
        energy on few bits. The draws are independent, but their law is the model's only in the limit of many steps.
        """
        candidates = self.config.sample_candidates
        kept: list[Tensor] = []
        log_odds = torch.logit(self.start_prob)
        for size in _chunks(num, 4096):
            x = self._starts(size * candidates, rng)
            if candidates > 1:
                log_weight = (self.net.log_prob(x) - x @ log_odds).reshape(size, candidates)
                u = uniforms((size, candidates), x, rng)
                best = (log_weight - torch.log(-torch.log(u))).argmax(1)  # Gumbel noise: a draw from the softmax
                x = x.reshape(size, candidates, -1)[torch.arange(size, device=x.device), best]
            kept.append(run_chain(self.sampler(), self.net, x, self.config.sample_steps, rng=rng).x)
        return torch.cat(kept)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.net.log_prob(x)

    def couplings(self) -> Tensor:
        """J (D, D) of the quadratic energy."""
        return couplings_of(self.net)


class GibbsEBM(PersistentEBM):
    """Persistent contrastive divergence with Gibbs sampling."""

    class Config(PersistentEBM.Config):
        sites: Annotated[int, Field(ge=1)] | Literal["all"]
        """What one step of the kernel updates: `all` sites in turn, or that many random ones."""

    def sampler(self) -> Kernel:
        """Gibbs sampling: a systematic sweep, or random sites."""
        return GibbsSweep() if self.config.sites == "all" else RandomScanGibbs(self.config.sites)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - begin) for begin in range(0, total, size)]
