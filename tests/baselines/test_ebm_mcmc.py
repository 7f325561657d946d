"""Energy-based models trained with persistent chains: Gibbs, Gibbs with gradients, discrete Langevin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.energy.ebm_dmala.model import DMALAEBM
from gmbench.baselines.energy.ebm_gibbs.model import GibbsEBM, PersistentEBM
from gmbench.baselines.energy.ebm_gwg.model import GWGEBM
from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Interrupted, Trainer

MODELS: dict[str, type[PersistentEBM]] = {"ebm_gibbs": GibbsEBM, "ebm_gwg": GWGEBM, "ebm_dmala": DMALAEBM}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, dim: int, task: str, track: str = "smoke", preset: str = "", **changes: Any) -> PersistentEBM:
    return from_card(MODELS[name], BinaryVector(dim), task, preset, track, **changes)


def fixed(x: Tensor) -> Data:
    def draw(num: int, generator: torch.Generator) -> Tensor:
        return x[torch.randint(len(x), (num,), generator=generator)]

    return Data(BinaryVector(x.shape[1]), x, draw, x[:100])


def online(probability: Tensor, dim: int) -> Data:
    states = all_states(dim).float()

    def draw(num: int, generator: torch.Generator) -> Tensor:
        return states[torch.multinomial(probability, num, replacement=True, generator=generator)]

    return Data(BinaryVector(dim), None, draw, draw(100, rng(9)))


def two_clusters(dim: int = 8) -> Tensor:
    """A distribution with two modes, all zeros and all ones, that independent bits miss."""
    ones = all_states(dim).sum(1)
    return torch.softmax(-1.2 * torch.minimum(ones, dim - ones), 0)


def kl(probability: Tensor, model: PersistentEBM) -> float:
    """Exact KL(truth | model), in nats."""
    log_q = torch.log_softmax(-model.energy(all_states(8).float()).detach().double(), 0)
    return float((probability * (probability.log() - log_q)).sum())


@every_model
def test_finds_the_couplings_of_a_small_ising_model(name: str) -> None:
    J = couplings(4, 0.15).float()
    data = fixed(exact_samples(4, 0.15, 2000, rng=rng(5)))
    changes = {"num_steps": 300, "num_chains": 256, "sampling_steps": 4, "batch_size": 2000, "learning_rate": 0.01}
    model = build(name, 16, "ising", **changes)
    Trainer(seed=0).fit(model, data)
    found = model.couplings()
    assert found.equal(found.T) and not bool(found.diagonal().any())
    rmse, zero = float((found - J).square().mean().sqrt()), float(J.square().mean().sqrt())
    assert rmse < 1.7 / (2 * math.sqrt(2000)) < 0.35 * zero  # near 1 / (2 sqrt N), free edges at weak coupling
    assert float(found[J > 0].mean()) == pytest.approx(0.15, abs=0.02)


@every_model
def test_the_exact_divergence_from_the_truth_falls(name: str) -> None:
    truth = two_clusters()
    model = build(
        name, 8, "synthetic2d", num_steps=200, num_chains=128, batch_size=128, learning_rate=0.005, sampling_steps=4
    )
    before = kl(truth, model)
    Trainer(seed=0).fit(model, online(truth, 8))
    assert before > 0.5
    assert kl(truth, model) < 0.15


def test_the_heldout_preset_beats_dense_couplings() -> None:
    J = couplings(6, 0.08).float()
    data = fixed(exact_samples(6, 0.08, 1000, rng=rng(6)))
    errors = {}
    for preset in ("", "l1"):
        model = build("ebm_gibbs", 36, "ising", preset=preset, num_steps=300, path_steps=60, num_chains=256)
        Trainer(seed=0).fit(model, data)
        errors[preset] = float((model.couplings() - J).square().mean().sqrt())
    assert errors["l1"] < 0.8 * errors[""]
    assert float((model.couplings() == 0).float().mean()) > 0.2


@every_model
@pytest.mark.parametrize(("task", "dim"), [("ising", 100), ("synthetic2d", 32)])
def test_the_smoke_config_runs_and_offers_what_the_card_says(name: str, task: str, dim: int) -> None:
    model = build(name, dim, task)
    x = (torch.rand(300, dim, generator=rng(1)) < 0.4).float()
    Trainer(seed=0).fit(model, fixed(x))
    assert {c for c in CAPABILITIES if offers(model, c)} == set(card_of(MODELS[name]).capabilities)
    samples = model.sample(5, rng=rng(2))
    model.space.validate(samples)
    assert samples.equal(model.sample(5, rng=rng(2)))
    assert model.energy(samples).shape == (5,) and bool(model.energy(samples).isfinite().all())
    moved = model.sampler().step(samples, model.net, rng=rng(3))
    model.space.validate(moved.x)


@every_model
def test_every_track_of_the_card_is_a_valid_config(name: str) -> None:
    for task in ("ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            MODELS[name].Config(**card_of(MODELS[name]).resolve(task, track))
    MODELS[name].Config(**card_of(MODELS[name]).resolve("ising", "small", "l1"))


@every_model
def test_an_interrupted_fit_resumes_to_the_same_parameters(name: str, tmp_path: Path) -> None:
    data = fixed(exact_samples(4, 0.1, 200, rng=rng(4)))
    changes = {"num_steps": 12, "path_steps": 3, "l1": "heldout"}
    whole, broken = (build(name, 16, "ising", **changes) for _ in range(2))
    for folder in ("whole", "broken"):
        (tmp_path / folder).mkdir()
    Trainer(folder=tmp_path / "whole", seed=1).fit(whole, data)
    for stop_after in (9, 22):
        calls = iter(range(1000))

        def stop(calls: Any = calls, limit: int = stop_after) -> bool:
            return next(calls) == limit

        try:
            Trainer(folder=tmp_path / "broken", seed=1, should_stop=stop).fit(broken, data)
        except Interrupted:
            broken = build(name, 16, "ising", **changes)
    Trainer(folder=tmp_path / "broken", seed=1).fit(broken, data)
    for key, value in whole.state_dict().items():
        assert value.equal(broken.state_dict()[key]), key


def test_samples_come_from_the_energy() -> None:
    model = build("ebm_gibbs", 8, "synthetic2d", sample_steps=3, sample_candidates=16, sites="all")
    with torch.no_grad():
        model.net.last.weight.mul_(40)
    states = all_states(8).float()
    expected = torch.softmax(-model.energy(states).detach().double(), 0)
    num = 20_000
    drawn = model.sample(num, rng=rng(7))
    counts = torch.bincount(state_index(drawn), minlength=256).double()
    assert float((expected * 256 - 1).abs().max()) > 1  # far from uniform
    large = expected * num > 5
    chi2 = float(((counts - expected * num)[large].square() / (expected * num)[large]).sum())
    degrees = int(large.sum())
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees)


def test_an_energy_that_is_a_perceptron_has_no_couplings_and_no_penalty_on_them() -> None:
    with pytest.raises(MissingCapability, match="perceptron"):
        build("ebm_gibbs", 8, "synthetic2d").couplings()
    with pytest.raises(UserError, match="quadratic"):
        build("ebm_gibbs", 8, "synthetic2d", l1=0.1)


def test_random_sites_and_sweeps_are_both_offered() -> None:
    x = torch.zeros(4, 8)
    assert build("ebm_gibbs", 8, "synthetic2d", sites="all").sampler().step(x, _Flat(), rng=rng()).num_evaluations >= 8
    few = build("ebm_gibbs", 8, "synthetic2d", sites=3).sampler().step(x, _Flat(), rng=rng())
    assert bool((few.x.sum(1) <= 3).all()) and bool(few.x.any())


class _Flat:
    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))
