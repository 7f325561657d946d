"""MADE by enumeration: normalisation, the autoregressive property, and samples that follow the probabilities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, rng
from gmbench.baselines.autoregressive.made.model import MADE, bit_order
from gmbench.baselines.autoregressive.made.network import MaskedNetwork
from gmbench.errors import UserError
from gmbench.model import Data
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def network(dim: int, *, seed: int = 0, hidden: int = 24, num_layers: int = 2, direct: bool = True) -> MaskedNetwork:
    """A network with large random weights and a random order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = MaskedNetwork(dim, hidden, num_layers, torch.randperm(dim), direct=direct)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return net.eval()


def config(**changes: Any) -> MADE.Config:
    return MADE.Config(**(card_of(MADE).resolve("synthetic2d", "smoke") | changes))


@pytest.mark.parametrize("hidden, num_layers, direct", [(24, 1, False), (24, 2, True), (5, 3, False)])
def test_probabilities_sum_to_one(hidden: int, num_layers: int, direct: bool) -> None:
    net = network(10, hidden=hidden, num_layers=num_layers, direct=direct)
    log_p = net.log_prob(all_states(10).float()).detach().double()
    assert log_p.std() > 1.0  # far from uniform
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_output_k_sees_exactly_the_bits_before_it() -> None:
    dim = 7
    net = network(dim, hidden=60)
    x = all_states(dim).float()[torch.randint(2**dim, (40,), generator=rng())].requires_grad_()
    for k in range(dim):
        (grad,) = torch.autograd.grad(net.logits(x)[:, net.order[k]].sum(), x)
        sees = grad.abs().sum(0)[net.order] > 0
        assert sees.tolist() == [j < k for j in range(dim)]


@pytest.mark.parametrize("hidden, num_layers", [(24, 2), (3, 1)])
def test_samples_follow_the_probabilities(hidden: int, num_layers: int) -> None:
    dim, num = 6, 40_000
    net = network(dim, seed=1, hidden=hidden, num_layers=num_layers)
    states = all_states(dim).float()
    p = net.log_prob(states).detach().double().exp()
    x = net.sample(num, rng=rng(2))
    BinaryVector(dim).validate(x)
    counts = torch.bincount((x @ 2.0 ** torch.arange(dim - 1, -1, -1)).long(), minlength=2**dim)
    chi2 = float(((counts - num * p).square() / (num * p)).sum())
    assert chi2 < 63 + 5 * (2 * 63) ** 0.5  # 63 degrees of freedom


def test_the_interleaved_order_takes_coordinates_in_turn() -> None:
    assert bit_order("interleaved", BinaryVector(6, (2, 3))).tolist() == [0, 3, 1, 4, 2, 5]
    assert bit_order("natural", BinaryVector(3)).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="layout"):
        bit_order("interleaved", BinaryVector(6))


def test_a_network_refuses_what_is_no_order() -> None:
    with pytest.raises(ValueError, match="once"):
        MaskedNetwork(3, 4, 1, torch.tensor([0, 1, 1]))


def target_data(space: BinaryVector, num_train: int | None) -> tuple[Data, Tensor]:
    """Data of a known distribution on 4 bits, and its probabilities."""
    p = torch.softmax(2 * torch.randn(16, generator=rng(11), dtype=torch.float64), 0)
    states = all_states(4).float()

    def fresh(num: int, rng: Generator) -> Tensor:
        return states[torch.multinomial(p, num, replacement=True, generator=rng)]

    train = None if num_train is None else fresh(num_train, rng(12))

    def rows(num: int, rng: Generator) -> Tensor:
        return fresh(num, rng) if train is None else train[torch.randint(len(train), (num,), generator=rng)]

    return Data(space, train, rows, fresh(2000, rng(13))), p


def test_training_finds_a_known_distribution() -> None:
    space = BinaryVector(4, (2, 2))
    data, p = target_data(space, None)
    torch.manual_seed(0)
    model = MADE(config(hidden=32, num_steps=400, batch_size=128, learning_rate=1e-2, validate_every=50), space)
    Trainer(seed=0).fit(model, data)
    log_q = model.log_prob(all_states(4).float(), rng=rng()).double()
    kl = float((p * (p.log() - log_q)).sum())
    uniform = float((p * (p.log() + 4 * torch.tensor(2.0).log())).sum())
    assert kl < 0.02 < 0.3 < uniform


def test_the_best_weights_on_validation_data_are_the_model() -> None:
    space = BinaryVector(4, (2, 2))
    data, _ = target_data(space, 20)  # few enough to be learned by heart
    torch.manual_seed(0)
    model = MADE(
        config(hidden=64, num_steps=300, batch_size=20, learning_rate=2e-2, prior=0.0, validate_every=10), space
    )
    Trainer(seed=0).fit(model, data)
    best = -model.log_prob(data.validation, rng=rng()).double().mean()
    last = -model.network.eval().log_prob(data.validation).detach().double().mean()
    assert float(best) == pytest.approx(float(model.best_nll), abs=1e-6)
    assert best < last - 0.05


@pytest.mark.parametrize("task", ["ising", "synthetic2d"])
@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_config(task: str, track: str) -> None:
    MADE.Config(**card_of(MADE).resolve(task, track))
