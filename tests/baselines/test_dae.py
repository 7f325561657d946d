"""The denoising autoencoder by enumeration on four bits: corruption, walkback loss, and the chain's stationary law."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from building import card_of, from_card, rng
from gmbench.baselines.latent.dae.model import DAE, corrupt
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

SPACE = BinaryVector(4, (2, 2))
STATES = all_states(4).float()


def build(**changes: Any) -> DAE:
    return from_card(DAE, SPACE, "dynamic_mnist", **{"hidden": 32, **changes})


def truth() -> Tensor:
    """Two modes, all zeros and all ones, (16,) float64."""
    ones = STATES.sum(1).double()
    return torch.softmax(-2.0 * torch.minimum(ones, 4 - ones), 0)


def data() -> Data:
    def draw(num: int, generator: Generator) -> Tensor:
        return STATES[torch.multinomial(truth(), num, replacement=True, generator=generator)]

    return Data(SPACE, None, draw, draw(500, rng(9)))


def corruption(noise: float) -> Tensor:
    """C(x~ | x) of all pairs of states, (16, 16), rows x."""
    flips = (STATES[:, None] != STATES).sum(-1).double()
    return (noise / 2) ** flips * (1 - noise / 2) ** (4 - flips)


def denoising(network: torch.nn.Module) -> Tensor:
    """log P(x | x~) of all pairs of states, (16, 16), rows x~."""
    logits = network(STATES).detach().double()
    return logits @ STATES.double().T - softplus(logits).sum(1, keepdim=True)


def test_corruption_replaces_bits_by_fair_coins() -> None:
    noise, num = 0.4, 40_000
    for start in (0, 6):
        x = STATES[start].expand(num, -1)
        counts = torch.bincount(state_index(corrupt(x, noise, rng(start))), minlength=16).double()
        expected = corruption(noise)[start] * num
        assert float(((counts - expected).square() / expected).sum()) < 15 + 5 * math.sqrt(30)
    assert corrupt(STATES, 1.0, rng(1)).mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("walkback_steps", [1, 3])
def test_the_loss_is_the_mean_over_the_chains_steps(walkback_steps: int) -> None:
    model = build(walkback_steps=walkback_steps, noise=0.3)
    with torch.no_grad():
        for index, parameter in enumerate(model.network.parameters()):
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=rng(index)))
    C, log_P = corruption(0.3), denoising(model.network)
    state, expected = torch.eye(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    for _ in range(walkback_steps):
        corrupted = state @ C  # law of x~ given the training point, (16, 16)
        expected -= (corrupted * log_P.T).sum(1) / walkback_steps
        state = corrupted @ log_P.exp()
    assert float(expected.std()) > 0.1
    for point in (2, 15):
        x = STATES[point].expand(20_000, -1)
        found = float(model.walkback_loss(x, rng(2)).detach())
        assert found == pytest.approx(float(expected[point]), abs=0.05)


def ideal_denoising(noise: float) -> Tensor:
    """P(x | x~) (16, 16), rows x~, of independent bits with the exact means under the joint p(x) C(x~ | x)."""
    joint = truth()[:, None] * corruption(noise)
    mean = (joint / joint.sum(0)).T @ STATES.double()  # (16 x~, 4)
    return torch.stack([(mean * x + (1 - mean) * (1 - x)).prod(1) for x in STATES.double()], 1)


def distance(p: Tensor, q: Tensor) -> float:
    """Total variation."""
    return 0.5 * float((p - q).abs().sum())


def test_the_chain_leaves_the_data_almost_invariant_and_samples_follow_its_stationary_law() -> None:
    noise, p = 0.2, truth()
    model = build(noise=noise, walkback_steps=1, num_steps=500, learning_rate=1e-2, sample_steps=60)
    Trainer(seed=0).fit(model, data())
    transition = corruption(noise) @ denoising(model.best.network).exp()
    stationary = torch.linalg.matrix_power(transition, 2000)[0]
    ideal = torch.linalg.matrix_power(corruption(noise) @ ideal_denoising(noise), 2000)[0]
    # .07 off the truth is what independent bits given x~ cost; of the rest the training is to blame
    assert distance(ideal, p) == pytest.approx(0.07, abs=0.01)
    assert distance(stationary, ideal) < 0.05
    assert distance(p @ transition, p) < 0.08
    uniform = torch.full((16,), 1 / 16, dtype=torch.float64)  # independent bits with the data's means
    assert distance(stationary, p) < 0.12 < 0.4 < distance(uniform, p)
    num = 20_000
    counts = torch.bincount(state_index(model.sample(num, rng=rng(3))), minlength=16).double()
    expected = stationary * num
    assert float(((counts - expected).square() / expected).sum()) < 15 + 5 * math.sqrt(30)
    assert model.sample(7, rng=rng(4)).equal(model.sample(7, rng=rng(4)))


def test_the_denoiser_learns_the_posterior_of_every_bit() -> None:
    """A network that is large enough has P(x_i = 1 | x~) of the joint p(x) C(x~ | x)."""
    noise = 0.4
    model = build(noise=noise, walkback_steps=1, num_steps=500, learning_rate=1e-2)
    Trainer(seed=0).fit(model, data())
    joint = truth()[:, None] * corruption(noise)
    expected = (joint / joint.sum(0)).T @ STATES.double()  # (16 x~, 4)
    assert (model.reconstruct(STATES).double() - expected).abs().max() < 0.1
    features = model.encode(STATES)
    assert features.shape == (16, 32) and features.equal(model.encode(STATES))
    torch.testing.assert_close(model.best.network.decoder(features).sigmoid().detach(), model.reconstruct(STATES))


def test_chains_start_from_bits_with_the_datas_means() -> None:
    def draw(num: int, generator: Generator) -> Tensor:
        return (torch.rand(num, 4, generator=generator) < torch.tensor([0.1, 0.5, 0.9, 0.9])).float()

    model = build(num_steps=5)
    Trainer(seed=0).fit(model, Data(SPACE, None, draw, draw(50, rng(5))))
    assert (model.start_logits.sigmoid() - torch.tensor([0.1, 0.5, 0.9, 0.9])).abs().max() < 0.07


def test_the_card_agrees_with_the_config_and_the_model() -> None:
    for task in ("dynamic_mnist", "ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            DAE.Config(**card_of(DAE).resolve(task, track))
    assert {name for name in CAPABILITIES if offers(build(), name)} == set(card_of(DAE).capabilities)
