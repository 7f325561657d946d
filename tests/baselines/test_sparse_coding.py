"""Sparse coding as an energy: codes against scikit-learn's, the gradient, the choice of beta, samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode
from torch import Tensor
from torch.nn.functional import logsigmoid

from building import card_of, from_card, rng
from gmbench.baselines.energy.sparse_coding.model import SparseCoding
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.target import flipped
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def build(dim: int, **changes: Any) -> SparseCoding:
    return from_card(SparseCoding, BinaryVector(dim), "synthetic2d", **changes)


def random_model(dim: int, num_atoms: int, **changes: Any) -> SparseCoding:
    model = build(dim, num_atoms=num_atoms, **{"code_steps": 300, "penalty": 0.2, **changes})
    D = torch.randn(num_atoms, dim, generator=rng(1))
    D = D / D.norm(dim=1, keepdim=True)
    model.dictionary.copy_(D)
    model.curvature.copy_(torch.linalg.eigvalsh(D @ D.T)[-1])
    model.mean.copy_(0.2 + 0.6 * torch.rand(dim, generator=rng(2)))
    model.beta.fill_(3.0)
    return model


def parts(num: int, generator: torch.Generator) -> Tensor:
    """Points of 16 bits: rows and columns of a 4x4 image, each lit with probability .2, and 2 % of noise."""
    rows = (torch.rand(num, 4, 1, generator=generator) < 0.2).expand(num, 4, 4)
    columns = (torch.rand(num, 1, 4, generator=generator) < 0.2).expand(num, 4, 4)
    x = (rows | columns).float().reshape(num, 16)
    return (x - (torch.rand(num, 16, generator=generator) < 0.02).float()).abs()


def parts_data() -> Data:
    return Data(BinaryVector(16), None, parts, parts(200, rng(9)))


@pytest.mark.parametrize("num_atoms", [5, 20])
def test_codes_are_those_of_scikit_learn(num_atoms: int) -> None:
    model = random_model(12, num_atoms).double()
    x = (torch.rand(50, 12, generator=rng(3)) < 0.4).double()
    D = model.dictionary.numpy()
    expected = sparse_encode((x - model.mean).numpy(), D, algorithm="lasso_cd", alpha=0.2, max_iter=10_000)
    found = model.encode(x).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert 0.1 < (found == 0).mean() < 0.95

    def cost(z: np.ndarray) -> np.ndarray:
        return ((x.numpy() - model.mean.numpy() - z @ D) ** 2).sum(1) / 2 + 0.2 * np.abs(z).sum(1)

    np.testing.assert_allclose(model.energy(x).numpy(), 3.0 * cost(expected), rtol=1e-3)
    assert (cost(found) <= cost(expected) + 1e-4).all()


def test_the_gradient_of_the_energy_is_that_of_the_minimum() -> None:
    model = random_model(10, 8, code_steps=2000).double()
    x = torch.rand(4, 10, generator=rng(4)).double().requires_grad_()
    (grad,) = torch.autograd.grad(model.energy(x).sum(), x)
    for i in range(10):
        step = torch.zeros(10).double()
        step[i] = 1e-5
        numeric = (model.energy(x.detach() + step) - model.energy(x.detach() - step)) / 2e-5
        torch.testing.assert_close(grad[:, i], numeric, rtol=1e-4, atol=1e-5)


def test_fitting_learns_a_dictionary_that_describes_new_points_better() -> None:
    model = build(16, num_atoms=12, num_points=1500, num_epochs=3, penalty=0.3, code_steps=100, validation_points=100)
    untrained = random_model(16, 12, penalty=0.3, code_steps=100)
    Trainer(seed=0).fit(model, parts_data())
    torch.testing.assert_close(model.dictionary.norm(dim=1), torch.ones(12), rtol=1e-3, atol=1e-3)
    x = parts(500, rng(5))
    untrained.mean.copy_(model.mean)
    cost = float((model.energy(x) / model.beta).mean())
    assert cost < 0.8 * float((untrained.energy(x) / untrained.beta).mean())
    wrong = float(((model.reconstruct(x) > 0.5) != (x > 0.5)).float().mean())
    assert wrong < 0.1 < 0.6 * float((x > 0.5).float().mean())
    # beta is the maximiser of the validation points' pseudo-likelihood
    points = parts_data().validation[:100]

    def pseudo(beta: float) -> float:
        total = torch.zeros(len(points))
        for i in range(16):
            gain = (model.energy(flipped(points, i)) - model.energy(points)) / model.beta
            total += logsigmoid(beta * gain)
        return float(total.mean())

    best = pseudo(float(model.beta))
    assert best > max(pseudo(0.9 * float(model.beta)), pseudo(1.1 * float(model.beta)))
    assert best > pseudo(0.1 * float(model.beta)) + 1


def test_samples_follow_the_energy() -> None:
    model = random_model(6, 4, sample_steps=60, code_steps=60)
    model.beta.fill_(4.0)
    num = 4000
    drawn = model.sample(num, rng=rng(6))
    expected = torch.softmax(-model.energy(all_states(6).float()).double(), 0) * num
    counts = torch.bincount(state_index(drawn), minlength=64).double()
    full = expected > 5
    degrees = int(full.sum())
    chi2 = float(((counts - expected).square() / expected)[full].sum())
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees)
    assert float((expected / num * 64 - 1).abs().max()) > 1  # far from uniform
    uniform_chi2 = float(((counts - num / 64).square() / (num / 64)).sum())
    assert uniform_chi2 > 500


def test_reconstructions_are_probabilities() -> None:
    model = random_model(8, 10, penalty=0.01)
    model.mean.mul_(2)
    x = all_states(8).float()
    given_back = model.reconstruct(x)
    assert float(given_back.min()) == 0 and float(given_back.max()) == 1
    inside = (given_back > 0) & (given_back < 1)
    plain = model.mean + model.encode(x) @ model.dictionary
    torch.testing.assert_close(given_back[inside], plain[inside])


def test_a_fit_depends_on_its_seed_alone() -> None:
    fits = []
    for seed in (0, 0, 1):
        model = build(16)
        np.random.seed(len(fits))  # noqa: NPY002 - the global state that must not matter
        Trainer(seed=seed).fit(model, parts_data())
        fits.append(model)
    assert fits[0].dictionary.equal(fits[1].dictionary) and fits[0].beta.equal(fits[1].beta)
    assert not fits[0].dictionary.equal(fits[2].dictionary)


def test_the_card_states_what_the_model_offers() -> None:
    for task in ("synthetic2d", "dynamic_mnist"):
        for track in ("smoke", "small", "medium", "paper"):
            SparseCoding.Config(**card_of(SparseCoding).resolve(task, track))
    assert {c for c in CAPABILITIES if offers(build(6), c)} == set(card_of(SparseCoding).capabilities)
