"""The autoencoder: reconstructions beside the mean image, and the Gaussian of codes against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli

from building import card_of, from_card, rng
from gmbench.baselines.latent.autoencoder.model import Autoencoder
from gmbench.baselines.latent.codes import CodeDensity
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

SPACE = BinaryVector(16, (4, 4))


def build(**changes: Any) -> Autoencoder:
    return from_card(Autoencoder, SPACE, "dynamic_mnist", **{"hidden": 32, **changes})


def squares(num: int, generator: Generator) -> Tensor:
    """Four bits, each repeated over a quarter of the image: (num, 16)."""
    quarters = torch.randint(2, (num, 2, 2), generator=generator).float()
    return quarters.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


DATA = Data(SPACE, None, squares, squares(100, rng(9)))


def cross_entropy(probs: Tensor, x: Tensor) -> float:
    return -float(Bernoulli(probs.clamp(1e-6, 1 - 1e-6)).log_prob(x).sum(1).mean())


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_it_reconstructs_better_than_the_mean_image(architecture: str) -> None:
    model = build(architecture=architecture, channels=8, latent_dim=4, num_steps=300, learning_rate=1e-2)
    Trainer(seed=0).fit(model, DATA)
    x = squares(200, rng(1))
    probs = model.reconstruct(x)
    mean_image = cross_entropy(x.mean(0).expand_as(x), x)
    assert mean_image == pytest.approx(16 * math.log(2), rel=0.05)
    assert cross_entropy(probs, x) < 0.1 * mean_image
    held_out = cross_entropy(model.reconstruct(DATA.validation), DATA.validation)
    assert float(model.best.loss) == pytest.approx(held_out, abs=1e-3)
    codes = model.encode(x)
    assert codes.shape == (200, 4) and codes.equal(model.encode(x)) and not codes.requires_grad
    torch.testing.assert_close(model.encode(x[:1]), codes[:1])
    torch.testing.assert_close(model.best.network.decoder(codes).sigmoid().detach(), probs)


def test_the_gaussian_of_codes_has_their_mean_and_covariance() -> None:
    codes = torch.randn(300, 3, generator=rng(2)) @ torch.randn(3, 3, generator=rng(3)) + 5
    codes = torch.cat([codes, codes[:, :1] * 2, torch.full((300, 1), 7.0)], 1)  # of rank 3 in 5 dimensions
    density = CodeDensity(5)
    density.fit(codes)
    expected = np.cov(codes.double().numpy().T)
    np.testing.assert_allclose((density.scale @ density.scale.T).numpy(), expected, atol=1e-4)
    drawn = density.sample(50_000, rng(4))
    assert (drawn.mean(0) - codes.mean(0)).abs().max() < 5 * float(expected.max()) ** 0.5 / math.sqrt(50_000)
    np.testing.assert_allclose(np.cov(drawn.numpy().T), expected, atol=0.05 * expected.max())
    assert (drawn[:, 4] - 7).abs().max() < 1e-3
    one = CodeDensity(1)
    one.fit(codes[:, :1])
    assert float(one.scale.abs()) == pytest.approx(float(codes[:, 0].std()), rel=1e-5)


def test_samples_are_bits_drawn_from_decoded_codes_of_the_gaussian() -> None:
    model = build(latent_dim=4, num_steps=300, learning_rate=1e-2)
    Trainer(seed=0).fit(model, DATA)
    codes = model.encode(squares(5000, rng(5)))
    assert (model.density.mean - codes.mean(0)).abs().max() < 0.3 * codes.std()
    x = model.sample(20_000, rng=rng(6))
    SPACE.validate(x)
    probs = model.best.network.decoder(model.density.sample(20_000, rng(7))).sigmoid().detach()
    error = 5 * math.sqrt(2 * 0.25 / 20_000)
    assert (x.mean(0) - probs.mean(0)).abs().max() < error
    pairs = (x.T @ x - probs.T @ probs) / 20_000  # bits of a sample share its code
    assert (pairs - pairs.diag().diag()).abs().max() < error
    assert model.sample(5, rng=rng(8)).equal(model.sample(5, rng=rng(8)))


def test_the_best_weights_on_validation_data_are_the_model() -> None:
    few = all_states(16)[::9000].float()  # 8 arbitrary images, learned by heart

    def draw(num: int, generator: Generator) -> Tensor:
        return few[torch.randint(len(few), (num,), generator=generator)]

    model = build(latent_dim=8, num_steps=400, learning_rate=1e-2, validate_every=20)
    Trainer(seed=0).fit(model, Data(SPACE, few, draw, DATA.validation))
    last = float(model.network.loss(DATA.validation).detach())
    best = float(model.best.network.loss(DATA.validation))
    assert best == pytest.approx(float(model.best.loss), abs=1e-4)
    assert best < last - 1


@pytest.mark.parametrize("preset", ["", "conv"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    for task in ("dynamic_mnist", "ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            Autoencoder.Config(**card_of(Autoencoder).resolve(task, track, preset))
    assert {name for name in CAPABILITIES if offers(build(), name)} == set(card_of(Autoencoder).capabilities)
