"""One way to choose how sparse learned couplings are, for every learner of a quadratic energy.

With few data the penalty moves the error of the couplings more than the learner does, so all learners choose it by one
rule: the penalty whose couplings, fitted to the first 1600 of 2000 training rows, have the best pseudo-likelihood on
the other 400; then all rows are fitted with it. No data beyond the training set are seen. A learner needs three lines:

    self.sparsity = Sparsity(config.l1, self.net)  # in __init__
    return self.sparsity.stages(self.net, data, self.make_stage, num_steps=..., path_steps=...)  # in stages
    self.sparsity.shrink(self.net, optimizer, l1)  # after step.minimize

The penalised estimate is the answer; the support is not refitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor, nn

from gmbench.errors import UserError
from gmbench.model import Data
from gmbench.training import Call, Gradient, Stage

from .energies import QuadraticEnergy

L1: TypeAlias = float | Literal["heldout"]
Draw: TypeAlias = Callable[[int, Generator], Tensor]
MakeStage: TypeAlias = Callable[[str, Tensor, Draw | None, int], Gradient]

# Penalties of a log-likelihood, in units of a correlation (see `shrink`): 2000 rows know a correlation to .022.
GRID = (0.12, 0.085, 0.06, 0.042, 0.03, 0.02, 0.01, 0.005, 0.0025)
TRAIN_SHARE = 0.8


class Sparsity(nn.Module):
    """The L1 penalty on the couplings of a quadratic energy: none, given, or chosen by held-out pseudo-likelihood.

    Arguments:
        l1: The penalty's weight, at least 0, or `heldout`.
        energy: The energy to be fitted; anything but a QuadraticEnergy takes l1 = 0 only.
        grid: The candidates of `heldout`, falling. A learner whose loss has another scale than the mean negative
            log-likelihood gives its own.

    The scores, the choice and the couplings that it belongs to are buffers, so that a checkpoint holds them.
    """

    def __init__(self, l1: L1, energy: nn.Module, *, grid: Sequence[float] = GRID) -> None:
        super().__init__()
        if l1 != 0 and not isinstance(energy, QuadraticEnergy):
            raise UserError(f"l1={l1!r} penalises couplings, which only the quadratic energy has: l1=0 here")
        if l1 == "heldout" and list(grid) != sorted(grid, reverse=True):
            raise ValueError(f"the grid of penalties falls, unlike {tuple(grid)}")
        self.rule = l1
        self.grid = tuple(grid) if l1 == "heldout" else ()
        self.chosen: Tensor
        self.scores: Tensor
        self.best_pairs: Tensor
        self.register_buffer("chosen", torch.tensor(0.0 if l1 == "heldout" else float(l1)))
        self.register_buffer("scores", torch.full((len(self.grid),), -torch.inf))
        if isinstance(energy, QuadraticEnergy) and l1 == "heldout":
            self.register_buffer("best_pairs", torch.zeros_like(energy.pairs.detach()))

    def stages(
        self, energy: nn.Module, data: Data, make_stage: MakeStage, *, num_steps: int, path_steps: int
    ) -> list[Stage]:
        """The learner's stages: one fit of `num_steps`, after a search of `path_steps` per candidate for `heldout`.

        The candidates are fitted from the strongest penalty to the weakest, each from the couplings of the one before.

        Arguments:
            energy: The energy that the stages fit.
            data: What the harness gives; `heldout` needs a fixed training set of independent rows.
            make_stage: `make_stage(name, l1, draw, num_steps)`: the learner's gradient stage with penalty `l1`, a
                scalar tensor whose value is known when the stage runs, and with batches from `draw`.
            num_steps: Steps of the last fit.
            path_steps: Steps of the fit of each candidate.
        """
        everything = None if data.train is None else rows_of(data.train)
        last = make_stage("fit", self.chosen, everything, num_steps)
        if self.rule != "heldout":
            return [last]
        assert isinstance(energy, QuadraticEnergy)
        quadratic, rows = energy, data.fixed
        num_train = round(TRAIN_SHARE * len(rows))
        train, held_out = rows_of(rows[:num_train]), rows[num_train:]
        stages: list[Stage] = []
        for position, l1 in enumerate(self.grid):
            stages.append(make_stage(f"fit with l1 = {l1:g}", self.chosen.new_tensor(l1), train, path_steps))

            def score(rng: Generator, position: int = position) -> None:
                self._score(position, quadratic, held_out)

            stages.append(Call(f"score l1 = {l1:g}", score))

        def choose(rng: Generator) -> None:
            self.chosen.fill_(self.grid[int(self.scores.argmax())])
            with torch.no_grad():
                quadratic.pairs.copy_(self.best_pairs)

        return [*stages, Call("choose l1", choose), last]

    @torch.no_grad()
    def _score(self, position: int, energy: QuadraticEnergy, held_out: Tensor) -> None:
        score = energy.pseudo_log_likelihood(held_out.to(energy.pairs.device)).double().mean()
        if score > self.scores.max():
            self.best_pairs.copy_(energy.pairs)
        self.scores[position] = score

    @staticmethod
    @torch.no_grad()
    def shrink(energy: nn.Module, optimizer: torch.optim.Optimizer, l1: Tensor) -> None:
        """The proximal step of the penalty l1 * sum_ij |J_ij|, after a step of Adam on the unpenalised loss.

        The sum is over all D^2 entries, so a pair counts twice; for maximum likelihood a coupling is zero where the
        correlation of data and model differ by at most l1. The threshold is in the metric of Adam's last step,
        learning_rate * 2 l1 / sqrt(v): stationary points are those of the penalised loss, and zeros are exact. (With
        the penalty in the loss, Adam's normalised steps would carry couplings across zero forever.)

        Arguments:
            energy: The energy whose couplings are shrunk; with l1 = 0 any energy.
            optimizer: Adam, having just stepped on `energy.pairs`.
            l1: Scalar weight.
        """
        if not isinstance(energy, QuadraticEnergy) or not l1 > 0:
            return
        pairs = energy.pairs
        group = next(g for g in optimizer.param_groups if any(p is pairs for p in g["params"]))
        state = optimizer.state[pairs]
        second_moment = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        threshold = group["lr"] * 2 * l1 / (second_moment.sqrt() + group["eps"])
        pairs.copy_(pairs.sign() * (pairs.abs() - threshold).clamp(min=0))


def rows_of(x: Tensor) -> Draw:
    """Batches of rows of a fixed set (N, D): random ones with replacement, or all N where at least N are asked for.

    With all of them each step, the data's side of a gradient is exact; their order is random, for who takes a part.
    """

    def draw(num: int, rng: Generator) -> Tensor:
        if num >= len(x):
            return x[torch.randperm(len(x), generator=rng, device=rng.device).to(x.device)]
        return x[torch.randint(len(x), (num,), generator=rng, device=rng.device).to(x.device)]

    return draw
