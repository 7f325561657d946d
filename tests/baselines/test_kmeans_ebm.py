"""k-means as an energy: the bound on log p, exact samples, the choice of beta, features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.kmeans_ebm.model import KMeansEBM
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def build(dim: int, **changes: Any) -> KMeansEBM:
    return from_card(KMeansEBM, BinaryVector(dim), "synthetic2d", **changes)


def random_model(dim: int, num_centres: int, beta: float = 2.0) -> KMeansEBM:
    model = build(dim, num_centres=num_centres)
    model.centres.copy_(torch.rand(num_centres, dim, generator=rng(1)))
    model.beta.fill_(beta)
    return model


def noisy_prototypes(flip: float = 0.05) -> tuple[Tensor, Data]:
    """Three prototypes of 12 bits, 6 apart, with independently flipped bits."""
    prototypes = torch.tensor([[0.0] * 12, [1.0] * 6 + [0.0] * 6, [0.0] * 3 + [1.0] * 6 + [0.0] * 3])

    def draw(num: int, generator: torch.Generator) -> Tensor:
        x = prototypes[torch.randint(3, (num,), generator=generator)]
        return (x - (torch.rand(x.shape, generator=generator) < flip).float()).abs()

    return prototypes, Data(BinaryVector(12), None, draw, draw(500, rng(9)))


def test_energy_is_beta_times_the_squared_distance_to_the_nearest_centre() -> None:
    model = random_model(6, 5, beta=1.7)
    x = all_states(6).float()
    expected = 1.7 * torch.cdist(x, model.centres).amin(1).square()
    torch.testing.assert_close(model.energy(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.3, 2.0, 8.0])
def test_log_prob_is_below_log_p_by_no_more_than_log_of_the_number_of_centres(beta: float) -> None:
    model = random_model(8, 6, beta)
    x = all_states(8).float()
    log_p = torch.log_softmax(-model.energy(x).double(), 0)
    gap = log_p - model.log_prob(x, rng=rng()).double()
    assert float(gap.std()) < 1e-5  # the same for every point: the bound is on log Z
    assert 1e-4 < float(gap.mean()) < math.log(6)


def test_one_centre_is_a_product_of_bernoullis() -> None:
    model = random_model(7, 1, beta=3.0)
    x = all_states(7).float()
    law = torch.distributions.Bernoulli(logits=3.0 * (2 * model.centres[0] - 1))
    torch.testing.assert_close(model.log_prob(x, rng=rng()), law.log_prob(x).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.2, 2.0])
def test_samples_are_exact(beta: float) -> None:
    model = random_model(6, 8, beta)
    num = 20_000
    drawn = model.sample(num, rng=rng(2))
    assert drawn.shape == (num, 6)
    expected = torch.softmax(-model.energy(all_states(6).float()).double(), 0) * num
    counts = torch.bincount(state_index(drawn), minlength=64).double()
    assert float(((counts - expected).square() / expected).sum()) < 63 + 5 * math.sqrt(126)


def test_fitting_finds_the_prototypes_and_the_beta_of_the_noise() -> None:
    prototypes, data = noisy_prototypes(flip=0.05)
    model = build(12, num_centres=3, num_points=4000, num_epochs=20, num_starts=3)
    Trainer(seed=0).fit(model, data)
    distance = torch.cdist(prototypes, model.centres)
    assert float(distance.amin(1).max()) < 0.3 and sorted(distance.argmin(1).tolist()) == [0, 1, 2]
    # the bound on the mean log p of validation points, over a grid of beta: a maximum, where fitting found it
    log_betas = torch.linspace(-1, 3, 81)
    bounds = []
    for log_beta in log_betas:
        other = random_model(12, 3, float(log_beta.exp()))
        other.centres.copy_(model.centres)
        bounds.append(float(other.log_prob(data.validation, rng=rng()).mean()))
    best = int(np.argmax(bounds))
    assert 0 < best < 80
    assert math.log(float(model.beta)) == pytest.approx(float(log_betas[best]), abs=0.06)
    # what was fitted explains new points nearly as well as the truth
    x = data.draw(2000, rng(5))
    flips = (x[:, None] - prototypes).abs().sum(2)
    log_true = torch.logsumexp(flips * math.log(0.05) + (12 - flips) * math.log(0.95), 1) - math.log(3)
    assert 0 < float((log_true - model.log_prob(x, rng=rng())).mean()) < 0.3


def test_features_are_triangle_activations() -> None:
    model = random_model(6, 5)
    x = all_states(6).float()
    d = np.linalg.norm(x.numpy()[:, None] - model.centres.numpy()[None], axis=2)
    expected = np.maximum(0, d.mean(1, keepdims=True) - d)
    np.testing.assert_allclose(model.encode(x).numpy(), expected, atol=1e-5)
    assert bool((model.encode(x) == 0).any()) and bool((model.encode(x) > 0).any(1).all())


def test_a_point_is_given_back_as_its_nearest_centre() -> None:
    model = random_model(6, 5)
    x = all_states(6).float()
    torch.testing.assert_close(model.reconstruct(x), model.centres[torch.cdist(x, model.centres).argmin(1)])


def test_a_fit_depends_on_its_seed_alone() -> None:
    _, data = noisy_prototypes(0.2)
    fits = []
    for seed in (0, 0, 1):
        model = build(12)
        np.random.seed(len(fits))  # noqa: NPY002 - the global state that must not matter
        Trainer(seed=seed).fit(model, data)
        fits.append(model.centres)
    assert fits[0].equal(fits[1]) and not fits[0].equal(fits[2])


def test_more_centres_than_points_are_refused() -> None:
    x = all_states(3).float()
    data = Data(BinaryVector(3), x, lambda num, generator: x[:num], x)
    with pytest.raises(UserError, match="num_centres=16"):
        Trainer(seed=0).fit(build(3), data)


def test_the_card_states_what_the_model_offers() -> None:
    for task in ("synthetic2d", "dynamic_mnist"):
        for track in ("smoke", "small", "medium", "paper"):
            KMeansEBM.Config(**card_of(KMeansEBM).resolve(task, track))
    model = random_model(6, 5)
    assert {c for c in CAPABILITIES if offers(model, c)} == set(card_of(KMeansEBM).capabilities)
