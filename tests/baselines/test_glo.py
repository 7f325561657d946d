"""Generative latent optimization: codes in the ball, the finite set behind them, and codes of new points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli

from building import card_of, from_card, rng
from gmbench.baselines.latent.glo.model import GLO, to_unit_ball
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

SPACE = BinaryVector(16, (4, 4))


def build(**changes: Any) -> GLO:
    values = {"latent_dim": 4, "hidden": 32, "num_codes": 200, **changes}
    return from_card(GLO, SPACE, "dynamic_mnist", **values)


def squares(num: int, generator: Generator) -> Tensor:
    """Four bits, each repeated over a quarter of the image: (num, 16)."""
    quarters = torch.randint(2, (num, 2, 2), generator=generator).float()
    return quarters.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def online() -> Data:
    return Data(SPACE, None, squares, squares(100, rng(9)))


def cross_entropy(probs: Tensor, x: Tensor) -> float:
    return -float(Bernoulli(probs.clamp(1e-6, 1 - 1e-6)).log_prob(x).sum(1).mean())


@pytest.fixture(scope="module")
def fitted() -> GLO:
    model = build(num_steps=500, learning_rate=1e-2)
    Trainer(seed=0).fit(model, online())
    return model


def test_the_projection_moves_only_what_is_outside() -> None:
    z = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(to_unit_ball(z), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_new_points_are_reconstructed_better_than_by_the_mean_image(fitted: GLO) -> None:
    x = squares(150, rng(1))
    mean_image = cross_entropy(x.mean(0).expand_as(x), x)
    assert mean_image == pytest.approx(16 * math.log(2), rel=0.05)
    with torch.no_grad():  # as tasks call it
        codes, probs = fitted.encode(x), fitted.reconstruct(x)
    assert cross_entropy(probs, x) < 0.25 * mean_image
    assert codes.shape == (150, 4) and not codes.requires_grad
    assert float(codes.norm(dim=1).max()) < 1 + 1e-5
    torch.testing.assert_close(fitted.decoder(codes).sigmoid().detach(), probs)
    # deterministic, and no point knows of the others
    assert codes.equal(fitted.encode(x))
    torch.testing.assert_close(fitted.encode(x[5:6]), codes[5:6], rtol=1e-3, atol=1e-3)


def test_encoding_changes_nothing_in_the_model(fitted: GLO) -> None:
    before = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}
    grads = [p.grad for p in fitted.parameters()]
    fitted.encode(squares(10, rng(2)))
    assert all(tensor.equal(before[name]) for name, tensor in fitted.state_dict().items())
    assert [p.grad for p in fitted.parameters()] == grads


def test_training_codes_stay_in_the_ball_and_reconstruct_their_points(fitted: GLO) -> None:
    assert float(fitted.codes.norm(dim=1).max().detach()) < 1 + 1e-5
    points = fitted.points.float()
    assert len(torch.unique(points, dim=0)) == 16
    own = cross_entropy(fitted.decoder(fitted.codes).sigmoid().detach(), points)
    others = cross_entropy(fitted.decoder(fitted.codes.roll(1, 0)).sigmoid().detach(), points)
    assert own < 1.5 < 10 < others


def test_samples_come_from_the_gaussian_of_codes(fitted: GLO) -> None:
    codes = fitted.codes.detach()
    torch.testing.assert_close(fitted.density.mean, codes.mean(0))
    torch.testing.assert_close(fitted.density.scale @ fitted.density.scale.T, codes.T.cov(), rtol=1e-3, atol=1e-5)
    x = fitted.sample(20_000, rng=rng(3))
    SPACE.validate(x)
    z = to_unit_ball(fitted.density.sample(20_000, rng(4)))
    assert (x.mean(0) - fitted.decoder(z).sigmoid().detach().mean(0)).abs().max() < 5 * math.sqrt(0.5 / 20_000)
    agree = (x[:, 0] == x[:, 1]).float().mean()  # two bits of one square, which independent bits would leave at a half
    assert agree > 0.7
    assert fitted.sample(5, rng=rng(5)).equal(fitted.sample(5, rng=rng(5)))


@pytest.mark.parametrize("num_codes", [6, 20])
def test_a_fixed_training_set_gives_each_of_its_points_a_code(num_codes: int) -> None:
    train = torch.eye(16)[:10]

    def draw(num: int, generator: Generator) -> Tensor:
        return train[torch.randint(10, (num,), generator=generator)]

    model = build(num_codes=num_codes, num_steps=2)
    Trainer(seed=0).fit(model, Data(SPACE, train, draw, train))
    assert model.points.dtype == torch.uint8
    found, counts = torch.unique(model.points.float(), dim=0, return_counts=True)
    assert len(found) == min(num_codes, 10)
    assert counts.tolist() == [max(1, num_codes // 10)] * len(found)


def test_a_step_moves_the_codes_of_its_batch_only() -> None:
    model = build(num_codes=1000, num_steps=1, batch_size=10)
    before = model.codes.detach().clone()
    Trainer(seed=0).fit(model, online())
    moved = (model.codes.detach() != before).any(1)
    assert 1 <= int(moved.sum()) <= 10


@pytest.mark.parametrize("preset", ["", "conv"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    for task in ("dynamic_mnist", "ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            GLO.Config(**card_of(GLO).resolve(task, track, preset))
    model = build(architecture="conv" if preset else "mlp", channels=2)
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(GLO).capabilities)
    assert model.reconstruct(squares(3, rng(6))).shape == (3, 16)
