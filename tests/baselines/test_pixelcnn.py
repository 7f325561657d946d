"""The gated PixelCNN: which pixels each one sees, normalisation by enumeration, and generation from caches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.pixelcnn.model import PixelCNN, image_shape
from gmbench.baselines.autoregressive.pixelcnn.network import PixelNetwork
from gmbench.baselines.autoregressive.pixelcnn.sampling import generate
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def build(layout: tuple[int, ...], **changes: Any) -> PixelCNN:
    return from_card(PixelCNN, BinaryVector(math.prod(layout), layout), "dynamic_mnist", **changes)


def network(
    shape: tuple[int, int], num_layers: int, *, first_kernel: int = 3, kernel: int = 3, std: float = 0.5
) -> PixelNetwork:
    """A network with large random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = PixelNetwork(shape, 6, num_layers, first_kernel=first_kernel, kernel=kernel)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return net


@pytest.mark.parametrize(
    ("shape", "num_layers", "first_kernel", "kernel"),
    [((6, 9), 1, 3, 3), ((6, 9), 2, 3, 3), ((7, 7), 2, 5, 3), ((5, 6), 4, 3, 3), ((1, 9), 2, 3, 5), ((4, 4), 2, 3, 5)],
)
def test_a_pixel_sees_exactly_the_pixels_before_it_within_reach(
    shape: tuple[int, int], num_layers: int, first_kernel: int, kernel: int
) -> None:
    net = network(shape, num_layers, first_kernel=first_kernel, kernel=kernel).double()
    reach = net.reach
    assert reach == first_kernel // 2 + (num_layers - 1) * (kernel // 2)
    height, width = shape
    x = (torch.rand(20, height * width, generator=rng()) < 0.5).double().requires_grad_()
    logits = net.logits(x)
    for pixel in range(height * width):
        (gradient,) = torch.autograd.grad(logits[:, pixel].sum(), x, retain_graph=True)
        seen = {divmod(other, width) for other in (gradient.abs().sum(0) > 0).nonzero()[:, 0].tolist()}
        i, j = divmod(pixel, width)
        above = {(a, b) for a in range(i - reach, i) for b in range(j - reach, j + reach + 1)}
        expected = above | {(i, b) for b in range(j - reach, j)}
        assert seen == {(a, b) for a, b in expected if a >= 0 and 0 <= b < width}


def test_flipping_a_pixel_moves_its_own_logit_and_those_before_it_not_at_all() -> None:
    net = network((4, 4), 4).double()
    x = (torch.rand(8, 16, generator=rng()) < 0.5).double()
    for pixel in range(16):
        flipped = x.clone()
        flipped[:, pixel] = 1 - x[:, pixel]
        moved = (net.logits(flipped) != net.logits(x)).any(0)
        assert moved.tolist() == [later > pixel for later in range(16)]


def test_probabilities_of_all_images_sum_to_one() -> None:
    log_p = network((3, 3), 3, std=1.0).double().log_prob(all_states(9)).detach()
    assert float(log_p.std()) > 1  # far from uniform
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "num_layers", "first_kernel", "kernel"),
    [((4, 5), 3, 3, 3), ((5, 4), 2, 7, 5), ((1, 8), 2, 5, 3), ((6, 1), 2, 3, 3), ((8, 8), 1, 7, 3)],
)
def test_logits_from_caches_are_those_of_a_full_pass(
    shape: tuple[int, int], num_layers: int, first_kernel: int, kernel: int
) -> None:
    net = network(shape, num_layers, first_kernel=first_kernel, kernel=kernel, std=0.8)
    x = (torch.rand(7, shape[0] * shape[1], generator=rng()) < 0.5).float()
    cached = torch.zeros_like(x)

    def choose(pixel: int, logits: Tensor) -> Tensor:
        cached[:, pixel] = logits
        return x[:, pixel]

    assert generate(net, 7, choose).equal(x)
    full = net.logits(x).detach()
    assert float(full.std()) > 0.3
    torch.testing.assert_close(cached, full, rtol=1e-5, atol=1e-5)


def test_samples_follow_the_probabilities() -> None:
    model, num = build((2, 3), channels=6, num_layers=2, first_kernel=3), 20_000
    model.best.load_state_dict(network((2, 3), 2, std=1.0).state_dict())
    x = model.sample(num, rng=rng(2))
    model.space.validate(x)
    expected = model.log_prob(all_states(6).float(), rng=rng()).double().exp() * num
    counts = torch.bincount(state_index(x), minlength=64)
    assert float(((counts - expected).square() / expected).sum()) < 63 + 5 * math.sqrt(2 * 63)


def test_training_finds_a_known_distribution_and_keeps_the_best_weights() -> None:
    p = torch.softmax(2 * torch.randn(16, generator=rng(11), dtype=torch.float64), 0)
    states = all_states(4).float()

    def draw(num: int, generator: Generator) -> Tensor:
        return states[torch.multinomial(p, num, replacement=True, generator=generator)]

    data = Data(BinaryVector(4, (2, 2)), None, draw, draw(1000, rng(13)))
    model = build((2, 2), channels=12, num_steps=200, batch_size=128, learning_rate=0.02, validate_every=50)
    Trainer(seed=0).fit(model, data)
    log_q = model.log_prob(states, rng=rng()).double()
    kl = float((p * (p.log() - log_q)).sum())
    uniform = float((p * (p.log() + 4 * math.log(2))).sum())
    assert kl < 0.03 < 0.3 < uniform
    nll = -float(model.log_prob(data.validation, rng=rng()).double().mean())
    assert nll == pytest.approx(float(model.best_nll), abs=1e-6)


def test_the_best_weights_are_kept_when_later_ones_are_worse() -> None:
    model = build((2, 2))
    x = all_states(4).float()
    model._validate(x)
    before = model.log_prob(x, rng=rng())
    with torch.no_grad():
        model.network.last.bias.fill_(9.0)
    model._validate(x)
    assert model.log_prob(x, rng=rng()).equal(before)


def test_any_layout_of_two_axes_is_an_image() -> None:
    assert image_shape(BinaryVector(32, (2, 16))) == (2, 16)
    assert image_shape(BinaryVector(5)) == (1, 5)
    assert image_shape(BinaryVector(5, (5,))) == (1, 5)
    with pytest.raises(UserError, match="layout"):
        image_shape(BinaryVector(8, (2, 2, 2)))
    with pytest.raises(UserError, match="odd"):
        build((4, 4), kernel=4)


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_code(track: str) -> None:
    for task in ("dynamic_mnist", "synthetic2d", "ising"):
        PixelCNN.Config(**card_of(PixelCNN).resolve(task, track))
    assert {c for c in CAPABILITIES if offers(build((4, 4)), c)} == set(card_of(PixelCNN).capabilities)
