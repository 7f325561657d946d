"""The importance weighted autoencoder: the paper's gradient, its bound beside the VAE's, and its card."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.latent.iwae.model import IWAE
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

SPACE = BinaryVector(6, (2, 3))


def build(**changes: Any) -> IWAE:
    return from_card(IWAE, SPACE, "dynamic_mnist", **{"latent_dim": 2, "hidden": 20, **changes})


def test_the_gradient_is_that_of_the_log_weights_averaged_by_normalised_weights() -> None:
    """Equation 14 of the paper: sum_k w_k / sum_l w_l * grad log w_k, the weights held fixed."""
    model, x = build(num_samples=7), all_states(6)[::7].float()
    step: Any = SimpleNamespace(rng=rng(1), fraction=0.0)
    parameters = list(model.network.parameters())
    found = torch.autograd.grad(model.bound(x, step), parameters)
    noise = torch.randn(7, len(x), 2, generator=rng(1))
    log_weights = model.network.log_weights(x, noise)
    normalised = torch.softmax(log_weights, 0).detach()
    assert normalised.max() > 0.25  # far from the uniform weights of the evidence lower bound
    expected = torch.autograd.grad((normalised * log_weights).sum(0).mean(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_bound_is_the_log_of_the_mean_weight() -> None:
    model, x = build(num_samples=5), all_states(6)[:4].float()
    found = model.bound(x, SimpleNamespace(rng=rng(2), fraction=0.0))  # type: ignore[arg-type]
    q, noise = model.posterior(x), torch.randn(5, 4, 2, generator=rng(2))
    z = q.mean + q.stddev * noise
    log_weights = model.prior().log_prob(z) + model.log_likelihood(x, z) - q.log_prob(z)
    torch.testing.assert_close(found.detach(), log_weights.exp().mean(0).log().mean())


def test_training_raises_the_bound_above_independent_bits() -> None:
    states = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]]).float()

    def draw(num: int, generator: Generator) -> Tensor:
        return states[torch.randint(3, (num,), generator=generator)]

    model = build(num_steps=300, learning_rate=1e-2, validate_every=100)
    Trainer(seed=0).fit(model, Data(SPACE, None, draw, draw(100, rng(3))))
    p = states.mean(0)
    independent = -float((states * p.log() + (1 - states) * (1 - p).log()).sum(1).mean())
    assert independent > 3.5
    assert float(model.best.loss) < 2.0  # the entropy is log 3 = 1.10


def test_only_its_own_bound_is_accepted() -> None:
    with pytest.raises(ValidationError, match="iwae"):
        build(bound="elbo")


@pytest.mark.parametrize("preset", ["", "k50"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    for task in ("dynamic_mnist", "ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            config = IWAE.Config(**card_of(IWAE).resolve(task, track, preset))
            assert config.num_samples == (50 if preset else 5)
    assert {name for name in CAPABILITIES if offers(build(), name)} == set(card_of(IWAE).capabilities)
