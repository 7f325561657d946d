"""EB-GFN: an energy-based model and a GFlowNet that learns to sample from it, trained together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.samplers.kernel import Kernel, Transition
from gmbench.samplers.target import Target
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, linear_decay

from ..energies import build_energy, couplings_of
from ..sparsity import Draw, Sparsity
from .back_and_forth import back_and_forth, num_deleted
from .loss import trajectory_balance
from .policy import Policy
from .trajectories import log_prob, sample


class EBMGFlowNet(Model):
    """p(x) ~ f(x) = exp(-E(x)) whose negatives a GFlowNet proposes, and the GFlowNet, whose reward is f.

    Each step updates both once:

    - the GFlowNet (P_F, P_B, log Z) by trajectory balance towards f, on trajectories of its own and on trajectories
      that lead backwards from data;
    - the energy by E_neg[log f] - E_data[log f], where a negative is a data point of which the GFlowNet clears K
      locations and sets them again, accepted or rejected so that f is left invariant. K grows during training.

    Two distributions come out: `log_prob` and `sample` are the GFlowNet's (a stochastic lower bound of log p over
    `num_trajectories`, and exact draws), `energy` and `couplings` the energy's.

    Departures from the paper, all switchable or stated: the accept-reject rule is Metropolis (`rule = "barker"` is the
    published code's); an unset location is 0 beside -1 and +1; both learning rates fall to zero in the second half of
    training, where the paper keeps them; batch sizes and widths are the card's.

    Source: D. Zhang, N. Malkin, Z. Liu, A. Volokhova, A. Courville, Y. Bengio, "Generative Flow Networks for Discrete
    Probabilistic Modeling", ICML 2022, arXiv 2202.01361.
    """

    class Config(BaseConfig):
        energy: Literal["quadratic", "mlp"]
        """`quadratic`: log f = s'Js with spins s = 2x - 1; `mlp`: a multilayer perceptron on bits."""
        hidden: int = Field(ge=1)
        """Width of the energy's hidden layers."""
        num_layers: int = Field(ge=1)
        """Number of the energy's hidden layers."""
        activation: Literal["elu", "swish"]
        """The energy's activation."""
        backward: Literal["learned", "uniform"]
        """The GFlowNet's backward policy; with `uniform` it is an any-order autoregressive model."""
        policy_hidden: int = Field(ge=1)
        """Width of the policy's hidden layers."""
        policy_layers: int = Field(ge=1)
        """Number of the policy's hidden layers."""
        num_steps: int = Field(ge=1)
        """Steps of training (of the last fit, where l1 is `heldout`)."""
        path_steps: int = Field(ge=1)
        """Steps for each candidate penalty where l1 is `heldout`."""
        batch_size: int = Field(ge=1)
        """Training points a step, each with its negative."""
        policy_batch_size: int = Field(ge=1)
        """Trajectories of each kind a step: forward ones, and backward ones from the first training points."""
        back_ratio: float = Field(ge=0, le=1)
        """Weight of the backward trajectories in the loss."""
        epsilon: float = Field(ge=0, lt=1)
        """Probability of a uniformly random choice on forward trajectories."""
        temperature: float = Field(gt=0)
        """Divides the logits on forward trajectories."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate for the energy in the first half; then it falls linearly to 0."""
        policy_learning_rate: float = Field(gt=0)
        """Adam's learning rate for the policy in the first half."""
        log_z_learning_rate: float = Field(gt=0)
        """Adam's learning rate for log Z in the first half."""
        warmup: float = Field(gt=0)
        """The fraction of a fit after which K has grown from 1 to all locations; above 1 it never does."""
        rule: Literal["metropolis", "barker", "none"]
        """How negatives are accepted; `none` accepts all."""
        energy_l2: float = Field(ge=0)
        """Weight of the mean of E^2 over data and negatives in the loss."""
        l1: Annotated[float, Field(ge=0)] | Literal["heldout"]
        """Weight of sum_ij |J_ij| in the loss, at least 0, or `heldout`: chosen on held-out training rows."""
        num_trajectories: int = Field(ge=1)
        """Backward trajectories in the bound on log p."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        self.net = build_energy(c.energy, space.dim, c.hidden, c.num_layers, c.activation)
        self.policy = Policy(space.dim, backward=c.backward, hidden=c.policy_hidden, num_layers=c.policy_layers)
        self.sparsity = Sparsity(c.l1, self.net)
        self.likelihood = Likelihood("gfn", f"traj{c.num_trajectories}", "lower_bound")

    def stages(self, data: Data) -> list[Stage]:
        c = self.config
        return self.sparsity.stages(self.net, data, self._stage, num_steps=c.num_steps, path_steps=c.path_steps)

    def _stage(self, name: str, l1: Tensor, draw: Draw | None, num_steps: int) -> Gradient:
        c = self.config
        optimizers = {
            "energy": torch.optim.Adam(self.net.parameters(), lr=c.learning_rate),
            "policy": torch.optim.Adam(
                [
                    {"params": list(self.policy.mlp.parameters()), "lr": c.policy_learning_rate},
                    {"params": [self.policy.log_z], "lr": c.log_z_learning_rate},
                ]
            ),
        }

        def update(x: Tensor, step: Step) -> None:
            tb = trajectory_balance(
                self.policy,
                self.net.log_prob,
                x[: c.policy_batch_size],
                num_forward=c.policy_batch_size,
                rng=step.rng,
                back_ratio=c.back_ratio,
                epsilon=c.epsilon,
                temperature=c.temperature,
            )
            step.minimize(tb.loss, "policy")
            k = num_deleted(step.index, num_bits=x.shape[1], warmup=max(1, round(c.warmup * num_steps)))
            negatives = back_and_forth(
                self.policy,
                self.net.log_prob,
                x,
                num_steps=k,
                rng=step.rng,
                rule=None if c.rule == "none" else c.rule,
            )
            log_f_data, log_f_neg = self.net.log_prob(x), self.net.log_prob(negatives.x)
            gap = log_f_neg.mean() - log_f_data.mean()
            size = log_f_data.square().mean() + log_f_neg.square().mean()
            step.minimize(gap + c.energy_l2 * size if c.energy_l2 else gap, "energy")
            self.sparsity.shrink(self.net, optimizers["energy"], l1)
            step.log(accept=negatives.accept_rate, K=float(k))

        return Gradient(name, num_steps, c.batch_size, optimizers, update, draw, linear_decay())

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D) of the GFlowNet."""
        return sample(self.policy, num, rng=rng)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """A stochastic lower bound of the GFlowNet's log p(x), (B,) nats."""
        return log_prob(self.policy, x, num_trajectories=self.config.num_trajectories, rng=rng)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = -log f(x), (B,), in nats; its normalising constant is unknown."""
        return -self.net.log_prob(x)

    def couplings(self) -> Tensor:
        """J (D, D) of the quadratic energy."""
        return couplings_of(self.net)

    def sampler(self) -> Kernel:
        """A Metropolis back-and-forth move of half of the locations."""
        return BackAndForth(self.policy, max(1, self.policy.num_bits // 2))


@dataclass(frozen=True)
class BackAndForth:
    """The back-and-forth move as a Markov kernel, stationary for its target whatever the policy.

    It counts as 2K + 2 evaluations: 2 of the energy, and one of the policy's network for each location that is cleared
    or set, since those cost as much.
    """

    policy: Policy
    num_steps: int

    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        moved = back_and_forth(self.policy, target.log_prob, x, num_steps=self.num_steps, rng=rng)
        return Transition(moved.x, moved.accept_rate, 2 * self.num_steps + 2)
