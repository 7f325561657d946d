"""Energy discrepancy: its loss by enumeration, its minimum, and couplings and densities that it recovers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.energies import QuadraticEnergy
from gmbench.baselines.energy.energy_discrepancy.loss import energy_discrepancy, perturb_twice
from gmbench.baselines.energy.energy_discrepancy.model import EnergyDiscrepancyEBM
from gmbench.errors import MissingCapability
from gmbench.model import Data
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Trainer


def fitted(data: Data, task: str, preset: str = "", **changes: Any) -> EnergyDiscrepancyEBM:
    model = from_card(EnergyDiscrepancyEBM, data.space, task, preset, **changes)
    Trainer(seed=0).fit(model, data)
    return model


def ising_data(side: int, sigma: float, num: int) -> Data:
    train = exact_samples(side, sigma, num, rng=rng(5))

    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    return Data(BinaryVector(side * side, (side, side)), train, draw, train)


def test_the_two_perturbations_flip_with_the_right_probabilities() -> None:
    eps = 0.2
    x = (torch.rand(4000, 6, generator=rng()) < 0.3).float()
    flips = perturb_twice(x, eps, 5, rng=rng(1)) != x[:, None]  # (B, M, D)
    one = 2 * eps * (1 - eps)
    assert float(flips.float().mean()) == pytest.approx(one, abs=0.01)
    # two copies agree unless exactly one of their own flips happened: the first flip is shared
    differ = (flips[:, 0] ^ flips[:, 1]).float().mean()
    assert float(differ) == pytest.approx(one, abs=0.01)
    both = (flips[:, 0] & flips[:, 1]).float().mean()
    assert float(both) == pytest.approx(eps * (1 - eps) ** 2 + (1 - eps) * eps**2, abs=0.01)
    assert float(both) > one**2 + 0.03  # what independent flips would give


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_the_loss_is_the_stated_formula(w: float) -> None:
    energy = QuadraticEnergy(5, 0.5)
    x = all_states(5).float()[:7]
    negatives = perturb_twice(x, 0.3, 4, rng=rng(2))
    E, E_neg = -energy.log_prob(x), -energy.log_prob(negatives.flatten(0, 1)).reshape(7, 4)
    expected = torch.log(w / 4 + torch.exp(E[:, None] - E_neg).mean(1)).mean().detach()
    value = energy_discrepancy(energy.log_prob, x, flip_prob=0.3, num_negatives=4, w=w, rng=rng(2)).detach()
    assert float(value) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_with_w_one_the_datas_density_is_a_stationary_point_for_any_number_of_negatives(eps: float) -> None:
    dim, num_negatives = 2, 2
    states = all_states(dim).float()
    log_p = torch.log_softmax(torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64), 0)
    hamming = (states[:, None] != states).sum(2).double()
    q = eps**hamming * (1 - eps) ** (dim - hamming)  # q[y, x]

    def expected_loss(log_f: Tensor, w: float) -> Tensor:
        total = log_f.new_zeros(())
        for a, y, b, c in itertools.product(range(4), repeat=4):
            chance = log_p[a].exp() * q[y, a] * q[b, y] * q[c, y]
            total = total + chance * torch.log(w / num_negatives + torch.exp(log_f[[b, c]] - log_f[a]).mean())
        return total

    at_truth = log_p.clone().requires_grad_()
    (grad,) = torch.autograd.grad(expected_loss(at_truth, 1.0), at_truth)
    assert grad.abs().max() < 1e-12
    (grad,) = torch.autograd.grad(expected_loss(at_truth, 0.0), at_truth)
    assert grad.abs().max() > 1e-3  # without stabilisation a finite M is biased


def test_exact_divergence_falls_on_an_enumerable_target() -> None:
    space = BinaryVector(8, (2, 4))
    states = all_states(8).float()
    target = QuadraticEnergy(8, 0.0)
    with torch.no_grad():
        target.pairs.copy_(0.35 * torch.randn(28, generator=rng(3)))
        p = torch.softmax(target.log_prob(states).double(), 0)

    def draw(num: int, rng: Generator) -> Tensor:
        return states[torch.multinomial(p, num, replacement=True, generator=rng)]

    model = fitted(
        Data(space, None, draw, draw(500, rng(4))),
        "synthetic2d",
        hidden=64,
        num_layers=2,
        num_steps=600,
        batch_size=128,
        learning_rate=3e-3,
    )
    log_q = torch.log_softmax(-model.energy(states).detach().double(), 0)
    kl = float((p * (p.log() - log_q)).sum())
    uniform = float((p * (p.log() + 8 * math.log(2))).sum())
    assert uniform > 0.8
    assert kl < 0.06
    with pytest.raises(MissingCapability, match="perceptron"):
        model.couplings()
    # samples follow the learned energy: the mean energy of independent Gibbs chains is that of the normalised model
    x = model.sample(4000, rng=rng(6))
    space.validate(x)
    energies = model.energy(states).detach().double()
    mean = float((log_q.exp() * energies).sum())
    spread = float((log_q.exp() * (energies - mean).square()).sum().sqrt())
    assert float(model.energy(x).detach().mean()) == pytest.approx(mean, abs=5 * spread / math.sqrt(4000))


def test_the_weights_with_the_best_validation_loss_are_kept() -> None:
    space = BinaryVector(8, (2, 4))
    target = torch.linspace(0.2, 0.8, 8)

    def fresh(num: int, seed: int) -> Tensor:
        return (torch.rand(num, 8, generator=rng(seed)) < target).float()

    train, held_out = fresh(15, 1), fresh(1000, 2)  # few enough to be learned by heart
    data = Data(space, train, lambda num, rng: train[torch.randint(15, (num,), generator=rng)], held_out)
    losses = {}
    for every in (0, 10):
        log_f = fitted(
            data, "synthetic2d", hidden=64, num_steps=150, batch_size=15, learning_rate=1e-2, validate_every=every
        ).net.log_prob
        loss = energy_discrepancy(log_f, held_out, flip_prob=0.3, num_negatives=8, w=1.0, rng=rng(3))
        losses[every] = float(loss.detach())
    assert losses[10] < losses[0] - 0.1


def test_couplings_of_a_lattice_are_recovered() -> None:
    data = ising_data(4, 0.2, 3000)
    J = fitted(
        data, "ising", num_steps=500, batch_size=500, learning_rate=1e-2, flip_prob=0.1, num_negatives=8
    ).couplings()
    truth = couplings(4, 0.2)
    assert torch.equal(J, J.T) and not J.diagonal().any()
    edges = J[truth > 0]
    assert float(edges.mean()) == pytest.approx(0.2, abs=0.02)
    assert float((J - truth).square().mean().sqrt()) < 0.3 * float(truth.square().mean().sqrt())


def test_the_l1_preset_makes_most_couplings_zero() -> None:
    data = ising_data(4, 0.15, 1500)
    changes = {"num_steps": 200, "path_steps": 60, "batch_size": 1500, "learning_rate": 1e-2, "num_negatives": 4}
    truth = couplings(4, 0.15)
    errors = {}
    for preset in ("", "l1"):
        J = fitted(data, "ising", preset, flip_prob=0.1, **changes).couplings()
        errors[preset] = float((J - truth).square().mean().sqrt())
        if preset:
            off = J[(truth == 0) & ~torch.eye(16, dtype=torch.bool)]
            assert (off == 0).any() and not (J[truth > 0] == 0).any()
    assert errors["l1"] < errors[""]


@pytest.mark.parametrize("preset", ["", "l1"])
@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_config(track: str, preset: str) -> None:
    for task in ("ising",) if preset else ("ising", "synthetic2d"):
        EnergyDiscrepancyEBM.Config(**card_of(EnergyDiscrepancyEBM).resolve(task, track, preset))
