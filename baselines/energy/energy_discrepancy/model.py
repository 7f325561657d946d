"""An energy-based model fitted by energy discrepancy: no Markov chain in training."""

from __future__ import annotations

import copy
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
from gmbench.training import Call, Gradient, Stage, Step, linear_decay

from ..energies import build_energy, couplings_of
from ..sparsity import GRID, Draw, Sparsity
from .loss import energy_discrepancy

ROWS = 4096  # chains that are moved together
VALIDATION_ROWS = 4096


class EnergyDiscrepancyEBM(Model):
    """p(x) ~ f(x) = exp(-E(x)), fitted by telling data from their perturbed copies (`loss.py`).

    Sources: T. Schröder, Z. Ou, J. N. Lim, Y. Li, S. J. Vollmer, A. B. Duncan, "Energy Discrepancies: A
    Score-Independent Loss for Energy-Based Models", 2023, arXiv 2307.06431; T. Schröder, Z. Ou, Y. Li, A. B. Duncan,
    "Training Discrete Energy-Based Models with Energy Discrepancy", 2023, arXiv 2307.07595.
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
        flip_prob: float = Field(gt=0, le=0.5)
        """Probability ε with which each of the two perturbations flips a bit."""
        num_negatives: int = Field(ge=1)
        """Perturbed copies M of each training point."""
        stabilisation: float = Field(ge=0)
        """The term w in log(w / M + mean exp(E(x) - E(x_j)))."""
        num_steps: int = Field(ge=1)
        """Gradient steps (of the last fit, where l1 is `heldout`)."""
        path_steps: int = Field(ge=1)
        """Gradient steps for each candidate penalty where l1 is `heldout`."""
        batch_size: int = Field(ge=1)
        """Training points a step."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate in the first half of the steps; then it falls linearly to 0."""
        l1: Annotated[float, Field(ge=0)] | Literal["heldout"]
        """Weight of sum_ij |J_ij| in the loss, at least 0, or `heldout`: chosen on held-out training rows."""
        validate_every: int = Field(ge=0)
        """Steps between looks at the validation loss, whose best weights become the model; 0 keeps the last weights."""
        sample_steps: int = Field(ge=1)
        """Gibbs sweeps from independent uniform bits to each sample."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        self.net = build_energy(c.energy, space.dim, c.hidden, c.num_layers, c.activation)
        # At J = 0 the loss has so many times the log-likelihood's gradient: a penalty must shrink with it.
        scale = (1 - (1 - 2 * c.flip_prob) ** 4) / (1 + c.stabilisation / c.num_negatives)
        self.sparsity = Sparsity(c.l1, self.net, grid=[scale * l1 for l1 in GRID])

        self.best_loss: Tensor
        if c.validate_every:
            self.best = copy.deepcopy(self.net).requires_grad_(False)
            self.register_buffer("best_loss", torch.tensor(torch.inf))

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        held_out = data.validation[:VALIDATION_ROWS]

        def stage(name: str, l1: Tensor, draw: Draw | None, num_steps: int) -> Gradient:
            return self._stage(name, l1, draw, num_steps, held_out)

        stages = self.sparsity.stages(self.net, data, stage, num_steps=c.num_steps, path_steps=c.path_steps)
        if c.validate_every:
            stages.append(Call("keep the best", lambda rng: self._keep_best()))
        return stages

    def _stage(self, name: str, l1: Tensor, draw: Draw | None, num_steps: int, held_out: Tensor) -> Gradient:
        c = self.config
        adam = torch.optim.Adam(self.net.parameters(), lr=c.learning_rate)

        def update(x: Tensor, step: Step) -> None:
            loss = energy_discrepancy(
                self.net.log_prob,
                x,
                flip_prob=c.flip_prob,
                num_negatives=c.num_negatives,
                w=c.stabilisation,
                rng=step.rng,
            )
            step.minimize(loss)
            self.sparsity.shrink(self.net, adam, l1)
            last = step.index + 1 == step.num_steps
            if c.validate_every and (last or (step.index + 1) % c.validate_every == 0):
                self._validate(held_out.to(x.device))

        return Gradient(name, num_steps, c.batch_size, {"main": adam}, update, draw, linear_decay())

    @torch.no_grad()
    def _validate(self, x: Tensor) -> None:
        """Keeps the weights if their loss on held-out x (B, D) is the lowest so far; the flips are always the same."""
        c = self.config
        rng = torch.Generator().manual_seed(0)
        total = x.new_zeros(())
        for rows in x.split(512):
            loss = energy_discrepancy(
                self.net.log_prob,
                rows,
                flip_prob=c.flip_prob,
                num_negatives=c.num_negatives,
                w=c.stabilisation,
                rng=rng,
            )
            total += loss * len(rows) / len(x)
        if total < self.best_loss:
            self.best_loss.copy_(total)
            self.best.load_state_dict(self.net.state_dict())

    def _keep_best(self) -> None:
        self.net.load_state_dict(self.best.state_dict())

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.net.log_prob(x)

    def couplings(self) -> Tensor:
        """J (D, D) of the quadratic energy."""
        return couplings_of(self.net)

    def sampler(self) -> Kernel:
        """A systematic Gibbs sweep. Training needs no sampler; this one makes the samples."""
        return GibbsSweep()

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent states (num, D), each `sample_steps` Gibbs sweeps after uniform bits of its own."""
        kept: list[Tensor] = []
        for begin in range(0, num, ROWS):
            shape = (min(ROWS, num - begin), self.space.dim)  # type: ignore[attr-defined]
            start = torch.randint(2, shape, generator=rng, device=rng.device).to(self.device, torch.float32)
            kept.append(run_chain(self.sampler(), self.net, start, self.config.sample_steps, rng=rng).x)
        return torch.cat(kept)
