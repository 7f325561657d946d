"""The deep belief network: bound and importance weights against enumeration, greedy fitting, supervised features."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from building import card_of, from_card, rng
from gmbench.baselines.energy.dbn.model import DBN
from gmbench.errors import MissingCapability, UserError
from gmbench.metrics.harmonium import exact_log_partition, log_density
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Interrupted, Trainer


def build(dim: int, preset: str = "", **changes: Any) -> DBN:
    return from_card(DBN, BinaryVector(dim), "synthetic2d", preset, **changes)


def random_network(dim: int, *hidden: int, scale: float = 1.0) -> DBN:
    model = build(dim, hidden=hidden)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng(index)))
    return model


def exact_log_p(model: DBN) -> Tensor:
    """log p of all x, (2^D,) float64, by summing over the states of every layer but the last."""
    top = model.harmonium()
    log_p = log_density(top, all_states(top.weight.shape[0])) - exact_log_partition(top)
    for machine in reversed(model._stack[:-1]):
        W, b = machine.weight.detach().double(), machine.visible_bias.detach().double()
        below, above = all_states(W.shape[0]), all_states(W.shape[1])
        log_odds = b + above @ W.T  # (2^H, V)
        log_conditional = below @ log_odds.T - softplus(log_odds).sum(1)  # (2^V, 2^H)
        log_p = torch.logsumexp(log_conditional + log_p, 1)
    return log_p


def brackets(model: DBN, x: Tensor, num: int) -> Tensor:
    """log p_L(v) + log p(x | v) - log q(v | x) for `num` ascents from each x, (num, B) float64."""
    top = model.harmonium()
    v, log_weight = model.ascend(x.repeat(num, 1), rng=rng(3))
    return (log_density(top, v.double()) - exact_log_partition(top) + log_weight.double()).reshape(num, len(x))


@pytest.mark.parametrize("sizes", [(6, 4, 3), (5, 4, 3, 2)])
def test_importance_weights_average_to_p_and_the_bound_lies_below_it(sizes: tuple[int, ...]) -> None:
    model = random_network(*sizes, scale=0.7)
    log_p = exact_log_p(model)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    x = all_states(sizes[0]).float()
    log_weights = brackets(model, x, 2000)
    ratio = (log_weights - log_p).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / math.sqrt(len(ratio)))
    assert float(z.abs().max()) < 5 and float(z.square().mean()) < 2
    assert bool((log_weights.mean(0) < log_p).all())
    assert float((log_p - log_weights.mean(0)).mean()) > 0.05  # q is not the posterior of random weights


def test_the_bound_agrees_with_its_sum_over_the_hidden_states() -> None:
    model = random_network(6, 4, 3)
    machine, top = model._stack[0], model.harmonium()
    W, b, c = (p.detach().double() for p in (machine.weight, machine.visible_bias, machine.hidden_bias))
    x, h = all_states(6), all_states(4)
    up, down = c + x @ W, b + h @ W.T
    log_q = up @ h.T - softplus(up).sum(1, keepdim=True)  # (64, 16)
    log_p = x @ down.T - softplus(down).sum(1) + log_density(top, h) - exact_log_partition(top)
    expected = (log_q.exp() * (log_p - log_q)).sum(1)
    found = brackets(model, x.float(), 2000)
    z = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert float(z.abs().max()) < 5


def test_a_single_machine_ascends_to_the_points_themselves() -> None:
    model = random_network(5, 3)
    x = all_states(5).float()
    v, log_weight = model.ascend(x, rng=rng())
    assert v.equal(x) and not bool(log_weight.any())


def test_samples_follow_the_exact_law() -> None:
    model = random_network(5, 4, 3, scale=0.8)
    model._stack[-1].start_prob.fill_(0.5)
    num = 20_000
    drawn = model.sample(num, rng=rng(5))
    expected = exact_log_p(model).exp() * num
    counts = torch.bincount(state_index(drawn), minlength=32).double()
    assert float(((counts - expected).square() / expected).sum()) < 31 + 5 * math.sqrt(62)
    assert model.sample(7, rng=rng(6)).equal(model.sample(7, rng=rng(6)))


def test_features_and_reconstructions_pass_means_through_all_layers() -> None:
    model = random_network(6, 4, 3)
    x = all_states(6).float()
    first, second = model._stack
    h1 = torch.sigmoid(first.hidden_bias + x @ first.weight)
    h2 = torch.sigmoid(second.hidden_bias + h1 @ second.weight)
    torch.testing.assert_close(model.encode(x), h2.detach())
    down = torch.sigmoid(second.visible_bias + h2 @ second.weight.T)
    torch.testing.assert_close(model.reconstruct(x), torch.sigmoid(first.visible_bias + down @ first.weight.T).detach())


def test_every_machine_is_given_hidden_bits_of_the_one_below() -> None:
    model = random_network(6, 4, 3)
    x = all_states(6).float()
    data = Data(model.space, x, lambda num, generator: x[:num], x)  # draws of fixed rows: not what is used here
    draws = {stage.name: stage.draw for stage in model.stages(data) if isinstance(stage, Gradient)}
    assert [name for name in draws if "fit" in name] == ["machine 1: fit", "machine 2: fit"]
    first, second = draws["machine 1: fit"], draws["machine 2: fit"]
    assert first is not None and second is not None
    assert first(64, rng()).sum(0).equal(x.sum(0))
    h = torch.cat([second(64, rng(seed)) for seed in range(200)])
    expected = model._stack[0].encode(x).mean(0)
    assert float((h.mean(0) - expected).abs().max()) < 4 * 0.5 / math.sqrt(len(h))


def two_clusters() -> Tensor:
    ones = all_states(8).sum(1)
    return torch.softmax(-1.2 * torch.minimum(ones, 8 - ones), 0)


def data_from(probability: Tensor, dim: int) -> Data:
    states = all_states(dim).float()

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return states[torch.multinomial(probability, num, replacement=True, generator=generator)]

    def draw_labelled(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = draw(num, generator)
        return x, x[:, 0].long()

    return Data(BinaryVector(dim), None, draw, draw(100, rng(9)), draw_labelled=draw_labelled)


def test_the_exact_divergence_from_the_truth_falls() -> None:
    truth = two_clusters()
    changes = {"num_chains": 256, "batch_size": 256, "sampling_steps": 2, "learning_rate": 0.02}
    model = build(8, hidden=[10, 8], num_steps=250, **changes)
    Trainer(seed=0).fit(model, data_from(truth, 8))
    kl = float((truth * (truth.log() - exact_log_p(model))).sum())
    p = truth @ all_states(8)
    log_independent = (all_states(8) * p.log() + (1 - all_states(8)) * (1 - p).log()).sum(1)
    independent = float((truth * (truth.log() - log_independent)).sum())
    assert kl < 0.2 < 0.3 * independent


def test_labels_change_the_features_and_not_the_generative_model() -> None:
    changes = {"hidden": [16, 2], "num_steps": 100, "num_classes": 2}  # two units cannot tell all about all bits
    data = data_from(two_clusters(), 8)
    plain = build(8, **changes)
    supervised = build(8, "labels", supervised_steps=400, supervised_learning_rate=0.02, **changes)
    for model in (plain, supervised):
        Trainer(seed=0).fit(model, data)
    fitted = supervised.state_dict()
    for name, value in plain.state_dict().items():
        assert value.equal(fitted[name]), name
    assert data.draw_labelled is not None
    x, classes = data.draw_labelled(2000, rng(4))
    accuracy = {}
    for name, model in (("plain", plain), ("supervised", supervised)):
        h = torch.cat([model.encode(x), torch.ones(len(x), 1)], 1)
        readout = torch.linalg.lstsq(h, 2.0 * classes[:, None] - 1).solution
        accuracy[name] = float(((h @ readout)[:, 0] > 0).eq(classes > 0).float().mean())
    assert accuracy["supervised"] > 0.98 > accuracy["plain"] + 0.03


def test_supervision_begins_at_the_greedy_weights() -> None:
    model = build(8, "labels", hidden=[6, 5])
    model._copy_upward()
    x = all_states(8).float()
    torch.testing.assert_close(model.encode(x), model._means_upward(x))


def test_labels_where_there_are_none_are_refused() -> None:
    data = data_from(two_clusters(), 8)
    without = Data(data.space, None, data.draw, data.validation)
    with pytest.raises(MissingCapability, match="classes"):
        build(8, "labels").stages(without)


@pytest.mark.parametrize("preset", ["", "labels"])
def test_the_smoke_config_runs_and_resumes_to_the_same_state(preset: str, tmp_path: Path) -> None:
    for task in ("synthetic2d", "dynamic_mnist"):
        for track in ("smoke", "small", "medium", "paper"):
            DBN.Config(**card_of(DBN).resolve(task, track, preset))
    data = data_from(two_clusters(), 8)
    whole, broken, resumed = (build(8, preset, num_steps=8) for _ in range(3))
    Trainer(seed=1).fit(whole, data)
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        Trainer(folder=tmp_path, seed=1, should_stop=lambda: next(calls) == 13).fit(broken, data)
    Trainer(folder=tmp_path, seed=1).fit(resumed, data)
    for key, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key
    assert {c for c in CAPABILITIES if offers(whole, c)} == set(card_of(DBN).capabilities)
    whole.space.validate(whole.sample(5, rng=rng(2)))


def test_sizes_of_the_stack_follow_the_config() -> None:
    model = build(12, hidden=(7, 5, 3))
    assert [tuple(m.weight.shape) for m in model._stack] == list(pairwise((12, 7, 5, 3)))
    assert model.harmonium().weight.shape == (5, 3)


def test_more_classes_than_units_are_refused_before_anything_is_fitted() -> None:
    data = replace(data_from(two_clusters(), 8), num_classes=101)
    with pytest.raises(UserError, match="num_classes=10, and the task has 101"):
        build(8, "labels").stages(data)
