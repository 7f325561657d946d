"""ALOE: an energy-based model and a sampler with learned local exploration, trained together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.samplers.chain import run_chain
from gmbench.samplers.gibbs import GibbsSweep
from gmbench.samplers.kernel import Kernel
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, linear_decay

from ...autoregressive.made.model import bit_order
from ..energies import build_energy, couplings_of
from ..sparsity import Draw, Sparsity
from .sampler import LocalEditSampler, propose_paths

ROWS = 4096  # samples that are drawn together


class AuxiliaryLocalExploration(Model):
    """p(x) ~ f(x), with negatives from a learned sampler q that is taught by what Gibbs sampling makes of its samples.

    One step: draw x' from q, move it by `gibbs_sweeps` Gibbs sweeps of f to x; update f by
    grad (E_data log f - E_x log f); update q to make the paths that end in x likelier. The likelihood of x under q sums
    over paths, so each x gets `num_paths` paths from a fixed proposal, weighted by their self-normalised importance
    q(path) / proposal(path | x): the gradient of a lower bound of log q(x).

    Source: H. Dai, R. Singh, B. Dai, C. Sutton, D. Schuurmans, "Learning Discrete Energy-based Models via
    Auxiliary-variable Local Exploration", 2020, arXiv 2011.05363.
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
        start_hidden: int = Field(ge=1)
        """Width of the sampler's autoregressive start."""
        edit_hidden: int = Field(ge=1)
        """Width of the network that edits."""
        order: Literal["natural", "interleaved"]
        """The order in which the sampler's autoregressive start generates bits, as for `made`."""
        max_edits: int = Field(ge=1)
        """Most edits of a path."""
        proposal_stop: float = Field(gt=0, lt=1)
        """The proposal flips a geometric number of bits back, stopping with this probability."""
        num_paths: int = Field(ge=1)
        """Proposed paths for each negative."""
        gibbs_sweeps: int = Field(ge=1)
        """Gibbs sweeps from the sampler's draws to the negatives."""
        num_steps: int = Field(ge=1)
        """Updates of the energy and the sampler (in the last fit, where l1 is `heldout`)."""
        path_steps: int = Field(ge=1)
        """Updates for each candidate penalty where l1 is `heldout`."""
        batch_size: int = Field(ge=1)
        """Training points of an update; all of a training set that has no more."""
        num_negatives: int = Field(ge=1)
        """Negatives of an update."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate for the energy in the first half of the updates; then it falls linearly to 0."""
        sampler_learning_rate: float = Field(gt=0)
        """The same for the sampler."""
        clip: float = Field(gt=0)
        """Largest norm of either gradient."""
        l1: Annotated[float, Field(ge=0)] | Literal["heldout"]
        """Weight of sum_ij |J_ij| in the energy's loss, at least 0, or `heldout`: chosen on held-out training rows."""
        sample_steps: int = Field(ge=0)
        """Gibbs sweeps from the learned sampler's draw to each sample; 0 for the sampler's own distribution."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        self.net = build_energy(c.energy, space.dim, c.hidden, c.num_layers, c.activation)
        max_edits, order = min(c.max_edits, space.dim), bit_order(c.order, space)
        self.q = LocalEditSampler(space.dim, c.start_hidden, c.edit_hidden, max_edits, order)
        self.sparsity = Sparsity(c.l1, self.net)

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        return self.sparsity.stages(self.net, data, self._stage, num_steps=c.num_steps, path_steps=c.path_steps)

    def _stage(self, name: str, l1: Tensor, draw: Draw | None, num_steps: int) -> Gradient:
        c = self.config
        energy = torch.optim.Adam(self.net.parameters(), lr=c.learning_rate)
        sampler = torch.optim.Adam(self.q.parameters(), lr=c.sampler_learning_rate)

        def update(x: Tensor, step: Step) -> None:
            proposed, num_edits = self.q.sample(c.num_negatives, rng=step.rng)
            negatives = run_chain(self.sampler(), self.net, proposed, c.gibbs_sweeps, rng=step.rng).x
            step.minimize(self.net.log_prob(negatives).mean() - self.net.log_prob(x).mean(), "energy", clip=c.clip)
            self.sparsity.shrink(self.net, energy, l1)
            step.minimize(self._sampler_loss(negatives, rng=step.rng), "sampler", clip=c.clip)
            step.log(edits=num_edits.mean())

        optimizers = {"energy": energy, "sampler": sampler}
        return Gradient(name, num_steps, c.batch_size, optimizers, update, draw, linear_decay())

    def _sampler_loss(self, x: Tensor, *, rng: Generator) -> Tensor:
        """Minus the importance-weighted log q of proposed paths to x (B, D), mean over x."""
        c = self.config
        ends = x.repeat_interleave(c.num_paths, dim=0)
        paths, log_proposal = propose_paths(ends, self.q.max_edits, c.proposal_stop, rng=rng)
        log_q = self.q.log_prob(paths)
        weights = torch.softmax((log_q.detach() - log_proposal).reshape(len(x), c.num_paths), dim=1)
        return -(weights * log_q.reshape(len(x), c.num_paths)).sum(1).mean()

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.net.log_prob(x)

    def couplings(self) -> Tensor:
        """J (D, D) of the quadratic energy."""
        return couplings_of(self.net)

    def sampler(self) -> Kernel:
        """The Gibbs sweep that turns the learned sampler's draws into negatives."""
        return GibbsSweep()

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D) of the learned sampler, moved on by `sample_steps` Gibbs sweeps."""
        kept: list[Tensor] = []
        for begin in range(0, num, ROWS):
            x, _ = self.q.sample(min(ROWS, num - begin), rng=rng)
            kept.append(run_chain(self.sampler(), self.net, x, self.config.sample_steps, rng=rng).x)
        return torch.cat(kept)
