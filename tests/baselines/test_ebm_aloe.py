"""ALOE: its sampler by enumeration of all paths, its proposal, and what the two learn together."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.ebm_aloe.model import AuxiliaryLocalExploration
from gmbench.baselines.energy.ebm_aloe.sampler import LocalEditSampler, Trajectories, propose_paths
from gmbench.errors import MissingCapability
from gmbench.model import Data
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Trainer


def index(x: Tensor) -> Tensor:
    return (x @ 2.0 ** torch.arange(x.shape[1] - 1, -1, -1)).long()


def random_sampler(dim: int, max_edits: int) -> LocalEditSampler:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        q = LocalEditSampler(dim, 12, 12, max_edits, torch.randperm(dim))
        for parameter in q.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return q


def all_paths(dim: int, max_edits: int) -> Trajectories:
    starts, sites, lengths = [], [], []
    for start in all_states(dim).float():
        for length in range(max_edits + 1):
            for path in itertools.product(range(dim), repeat=length):
                starts.append(start)
                sites.append(list(path) + [0] * (max_edits - length))
                lengths.append(length)
    return Trajectories(torch.stack(starts), torch.tensor(sites), torch.tensor(lengths))


def terminal(q: LocalEditSampler) -> Tensor:
    """The exact distribution of the sampler's last state, (2^D,)."""
    paths = all_paths(q.dim, q.max_edits)
    p = q.log_prob(paths).detach().double().exp()
    return torch.zeros(2**q.dim, dtype=torch.float64).index_add(0, index(paths.states()[:, -1]), p)


@pytest.mark.parametrize("max_edits", [1, 3])
def test_probabilities_of_all_paths_sum_to_one(max_edits: int) -> None:
    assert float(terminal(random_sampler(3, max_edits)).sum()) == pytest.approx(1.0, abs=1e-5)


def test_samples_follow_the_probabilities_of_paths() -> None:
    q = random_sampler(3, 3)
    p = terminal(q)
    num = 40_000
    x, num_edits = q.sample(num, rng=rng())
    counts = torch.bincount(index(x), minlength=8)
    chi2 = float(((counts - num * p).square() / (num * p)).sum())
    assert chi2 < 7 + 5 * math.sqrt(14)
    paths = all_paths(3, 3)
    expected = float((q.log_prob(paths).detach().double().exp() * paths.length).sum())
    assert float(num_edits.mean()) == pytest.approx(expected, abs=0.03)


def test_a_path_ends_where_its_edits_lead() -> None:
    paths = Trajectories(torch.tensor([[0.0, 1, 0]]), torch.tensor([[2, 1, 0]]), torch.tensor([2]))
    assert paths.states()[0].tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1]]


def test_proposed_paths_end_in_x_with_the_stated_probabilities() -> None:
    num, stop = 60_000, 0.4
    x = torch.tensor([[1.0, 0.0, 1.0]]).expand(num, 3)
    paths, log_prob = propose_paths(x, 2, stop, rng=rng(2))
    assert torch.equal(paths.states()[:, -1], x)
    assert paths.length.bincount(minlength=3).div(num).tolist() == pytest.approx([0.4, 0.24, 0.36], abs=0.01)
    live = torch.where(torch.arange(2) < paths.length[:, None], paths.sites, -1)
    names, kinds = live.unique(dim=0, return_inverse=True)
    assert len(names) == 1 + 3 + 3 * 2
    frequency = kinds.bincount().double() / num
    stated = torch.zeros(len(names)).scatter(0, kinds, log_prob.exp())
    assert float(stated.sum()) == pytest.approx(1.0, abs=1e-5)
    assert (frequency - stated).abs().max() < 0.01


def test_importance_weights_estimate_the_samplers_likelihood() -> None:
    # mean of q(path) / proposal(path | x) over proposals sums q over the paths whose edits are distinct
    q = random_sampler(3, 3)
    x = torch.tensor([[1.0, 0.0, 0.0]])
    paths = all_paths(3, 3)
    distinct = torch.tensor(
        [len(set(s[:n])) == n for s, n in zip(paths.sites.tolist(), paths.length.tolist(), strict=True)]
    )
    chosen = distinct & (paths.states()[:, -1] == x).all(1)
    exact = float(q.log_prob(paths).detach().double().exp()[chosen].sum())
    proposed, log_prob = propose_paths(x.expand(20_000, 3), 3, 0.5, rng=rng(3))
    ratio = (q.log_prob(proposed).detach() - log_prob).double().exp()
    assert float(ratio.mean()) == pytest.approx(exact, abs=5 * float(ratio.std()) / math.sqrt(20_000))


def fitted(data: Data, task: str, preset: str = "", **changes: Any) -> AuxiliaryLocalExploration:
    model = from_card(AuxiliaryLocalExploration, data.space, task, preset, **changes)
    Trainer(seed=0).fit(model, data)
    return model


def test_energy_and_sampler_learn_an_enumerable_target() -> None:
    space = BinaryVector(6, (2, 3))
    states = all_states(6).float()
    p = torch.softmax(1.3 * torch.randn(64, generator=rng(4), dtype=torch.float64), 0)

    def draw(num: int, rng: Generator) -> Tensor:
        return states[torch.multinomial(p, num, replacement=True, generator=rng)]

    model = fitted(
        Data(space, None, draw, draw(500, rng(5))),
        "synthetic2d",
        hidden=48,
        num_layers=2,
        start_hidden=48,
        edit_hidden=48,
        num_steps=300,
        batch_size=128,
        num_negatives=128,
        learning_rate=3e-3,
        sampler_learning_rate=1e-2,
        num_paths=4,
        max_edits=4,
    )
    uniform = float((p * (p.log() + 6 * math.log(2))).sum())
    log_f = torch.log_softmax(-model.energy(states).detach().double(), 0)
    energy_kl = float((p * (p.log() - log_f)).sum())
    x, _ = model.q.sample(20_000, rng=rng(6))
    frequency = torch.bincount(index(x), minlength=64).double() / 20_000
    sampler_tv = float((frequency - p).abs().sum() / 2)
    uniform_tv = float((1 / 64 - p).abs().sum() / 2)
    assert energy_kl < 0.3 * uniform
    assert sampler_tv < 0.5 * uniform_tv
    with pytest.raises(MissingCapability, match="perceptron"):
        model.couplings()


def test_couplings_of_a_lattice_are_recovered_and_sampled() -> None:
    truth = couplings(4, 0.15)
    train = exact_samples(4, 0.15, 2000, rng=rng(7))
    space = BinaryVector(16, (4, 4))
    data = Data(space, train, lambda num, rng: train[torch.randint(2000, (num,), generator=rng)], train)
    model = fitted(
        data, "ising", num_steps=200, batch_size=2000, num_negatives=200, learning_rate=1e-2, sampler_learning_rate=1e-2
    )
    J = model.couplings()
    assert torch.equal(J, J.T)
    assert float(J[truth > 0].mean()) == pytest.approx(0.15, abs=0.03)
    assert float((J - truth).square().mean().sqrt()) < 0.4 * float(truth.square().mean().sqrt())
    x = model.sample(2000, rng=rng(8))
    space.validate(x)
    edges = (truth > 0).float()
    along, expected = (float(((s @ edges) * s).mean()) / 4 for s in (2 * x - 1, 2 * train - 1))
    assert expected > 0.3 and along == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("preset", ["", "l1"])
@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_config(track: str, preset: str) -> None:
    for task in ("ising",) if preset else ("ising", "synthetic2d"):
        AuxiliaryLocalExploration.Config(**card_of(AuxiliaryLocalExploration).resolve(task, track, preset))
