"""The shared choice of a sparsity: its proximal step, its search, and what a checkpoint must hold of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.baselines.energy.energies import MLPEnergy, QuadraticEnergy
from gmbench.baselines.energy.sparsity import GRID, Draw, Sparsity, rows_of
from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data, Model
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.pseudo_likelihood import fit_l1
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Gradient, Step, Trainer, linear_decay


class PseudoLikelihood(Model):
    """A learner whose loss is deterministic: half the negative pseudo-likelihood, which scales like a likelihood."""

    def __init__(self, l1: float | str, dim: int) -> None:
        super().__init__(None, BinaryVector(dim))
        self.net = QuadraticEnergy(dim)
        self.sparsity = Sparsity(l1, self.net, grid=(0.3, 0.06, 0.001))  # type: ignore[arg-type]
        self.seen: list[tuple[str, float, int]] = []

    def stages(self, data: Data) -> list[object]:  # type: ignore[override]
        return list(self.sparsity.stages(self.net, data, self.make_stage, num_steps=600, path_steps=100))

    def make_stage(self, name: str, l1: Tensor, draw: Draw | None, num_steps: int) -> Gradient:
        adam = torch.optim.Adam(self.net.parameters(), lr=0.02)

        def update(batch: Tensor, step: Step) -> None:
            if step.index == 0:
                self.seen.append((name, float(l1), len(batch)))
            step.minimize(-self.net.pseudo_log_likelihood(batch).mean() / 2)
            self.sparsity.shrink(self.net, adam, l1)

        return Gradient(name, num_steps, 10_000, {"main": adam}, update, draw, linear_decay())


def ising_data(side: int = 4, sigma: float = 0.1, num: int = 500) -> Data:
    x = exact_samples(side, sigma, num, rng=rng(3))
    return Data(BinaryVector(side * side), x, rows_of(x), x)


def test_the_proximal_step_ends_at_the_minimum_of_the_penalised_loss() -> None:
    data = ising_data()
    model = PseudoLikelihood(0.05, 16)
    Trainer(seed=0).fit(model, data)
    expected = fit_l1(data.fixed, 2 * 0.05).float()  # the loss there is twice ours
    assert 0.2 < (expected == 0).float().mean() < 0.9
    found = model.net.couplings().detach()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert ((found == 0) == (expected == 0)).float().mean() > 0.97


def test_without_a_penalty_nothing_is_shrunk() -> None:
    model = PseudoLikelihood(0.0, 16)
    Trainer(seed=0).fit(model, ising_data())
    expected = fit_l1(ising_data().fixed, 0.0).float()
    torch.testing.assert_close(model.net.couplings().detach(), expected, atol=1e-3, rtol=0)
    assert [stage[1:] for stage in model.seen] == [(0.0, 500)]


def test_the_search_scores_candidates_on_rows_it_did_not_fit_and_then_fits_all() -> None:
    data = ising_data(num=1000)
    model = PseudoLikelihood("heldout", 16)
    Trainer(seed=0).fit(model, data)
    assert [stage[1] for stage in model.seen] == pytest.approx([0.3, 0.06, 0.001, 0.06])
    assert [stage[2] for stage in model.seen] == [800, 800, 800, 1000]
    assert float(model.sparsity.chosen) == pytest.approx(0.06)
    empty = -16 * torch.tensor(2.0).log()  # every coupling zero: each bit a fair coin
    assert float(model.sparsity.scores[0]) == pytest.approx(float(empty), rel=1e-4)
    direct = fit_l1(data.fixed[:800], 2 * 0.06).float()
    energy = QuadraticEnergy(16)
    rows, columns = torch.triu_indices(16, 16, offset=1)
    energy.pairs.data = direct[rows, columns]
    score = energy.pseudo_log_likelihood(data.fixed[800:]).mean().detach()
    assert float(model.sparsity.scores[1]) == pytest.approx(float(score), abs=2e-3)


def test_the_choice_is_part_of_the_state() -> None:
    model = PseudoLikelihood("heldout", 16)
    model.sparsity.scores[1] = -3.0
    model.sparsity.chosen.fill_(0.06)
    model.sparsity.best_pairs.fill_(0.5)
    other = PseudoLikelihood("heldout", 16)
    other.load_state_dict(model.state_dict())
    assert float(other.sparsity.chosen) == pytest.approx(0.06)
    assert float(other.sparsity.scores[1]) == -3.0
    assert bool((other.sparsity.best_pairs == 0.5).all())


def test_what_cannot_be_penalised_is_refused() -> None:
    with pytest.raises(UserError, match="quadratic"):
        Sparsity(0.1, MLPEnergy(8, 4, 1))
    with pytest.raises(UserError, match="quadratic"):
        Sparsity("heldout", MLPEnergy(8, 4, 1))
    assert float(Sparsity(0.0, MLPEnergy(8, 4, 1)).chosen) == 0
    with pytest.raises(ValueError, match="falls"):
        Sparsity("heldout", QuadraticEnergy(8), grid=(0.1, 0.2))
    endless = Data(BinaryVector(16), None, rows_of(torch.zeros(1, 16)), torch.zeros(1, 16))
    with pytest.raises(MissingCapability, match="fixed training set"):
        PseudoLikelihood("heldout", 16).stages(endless)


def test_rows_are_all_of_the_set_or_a_random_part() -> None:
    x = torch.arange(12.0).reshape(6, 2)
    draw = rows_of(x)
    assert all(draw(num, rng()).sort(0).values.equal(x) for num in (6, 9))
    assert not draw(6, rng()).equal(draw(6, rng(1)))  # in a random order
    part = draw(5, rng())
    assert part.shape == (5, 2)
    assert all((row == x).all(1).any() for row in part)
    many = torch.cat([draw(5, rng(seed)) for seed in range(30)])
    assert len(many.unique(dim=0)) == 6


def test_the_grid_of_candidates_falls() -> None:
    assert list(GRID) == sorted(GRID, reverse=True)
