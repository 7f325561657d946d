"""The reference rows against counts, enumeration and what theory says of pseudo-likelihood."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import rng
from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data, Model
from gmbench.plugin import ModelCard, read_manifest
from gmbench.registry import Plugin
from gmbench.samplers.transition_matrix import all_states
from gmbench.spaces import BinaryVector
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.training import Call

FOLDER = Path(__file__).parents[2] / "baselines" / "reference"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/plugin.toml"))


def build(name: str, space: BinaryVector, task: str, **changes: Any) -> Model:
    card = read_manifest(FOLDER / name)
    assert isinstance(card, ModelCard)
    model_class = Plugin(card, FOLDER / name, f"gmbench.baselines.reference.{name}").load()
    model: Model = model_class(model_class.Config(**(card.resolve(task, "smoke") | changes)), space)
    return model


def fit(model: Model, data: Data) -> Model:
    for stage in model.stages(data):
        assert isinstance(stage, Call)
        stage.run(rng(1))
    return model


class IsingTruth:
    def __init__(self, J: Tensor) -> None:
        self.J = J

    def couplings(self) -> Tensor:
        return self.J


def fixed(space: BinaryVector, train: Tensor, *, truth: Any = None, validation: Tensor | None = None) -> Data:
    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    return Data(space, train, draw, train if validation is None else validation, truth)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_cards_agree_with_the_typed_configs(name: str, track: str) -> None:
    card = read_manifest(FOLDER / name)
    assert isinstance(card, ModelCard) and card.role == "reference" and card.name == name
    config = Plugin(card, FOLDER / name, f"gmbench.baselines.reference.{name}").load().Config
    for task in card.only_tasks or ["ising", "synthetic2d"]:
        config(**card.resolve(task, track))


def test_uniform_is_uniform() -> None:
    space = BinaryVector(8)
    model = fit(build("uniform", space, "ising"), fixed(space, torch.ones(3, 8)))
    x = model.sample(4000, rng=rng())
    space.validate(x)
    assert (x.mean(0) - 0.5).abs().max() < 0.04  # 5 standard errors
    assert torch.allclose(model.log_prob(all_states(8).float(), rng=rng()).exp().sum(), torch.tensor(1.0))


def test_independent_bits_follow_laplace_and_sum_to_one() -> None:
    space = BinaryVector(5)
    train = (torch.rand(50, 5, generator=rng(3)) < torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])).float()
    model = fit(build("independent_bits", space, "ising"), fixed(space, train))
    p = (train.sum(0) + 1) / 52
    states = all_states(5).float()
    expected = torch.where(states > 0, p, 1 - p).prod(1)
    assert torch.allclose(model.log_prob(states, rng=rng()).exp(), expected, rtol=1e-5)
    assert expected.sum() == pytest.approx(1.0, abs=1e-6)
    x = model.sample(20_000, rng=rng(4))
    assert ((x.mean(0) - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all()


def test_independent_bits_count_unlimited_draws_in_blocks() -> None:
    space = BinaryVector(2)
    asked: list[int] = []

    def draw(num: int, rng: Generator) -> Tensor:
        asked.append(num)
        return torch.tensor([1.0, 0.0]).expand(num, 2)

    model = build("independent_bits", space, "synthetic2d", num_draws=250_000)
    fit(model, Data(space, None, draw, torch.zeros(1, 2)))
    assert sum(asked) == 250_000 and max(asked) <= 100_000
    assert model.prob.tolist() == pytest.approx([250_001 / 250_002, 1 / 250_002])


def test_histogram_matches_counts_and_sums_to_one() -> None:
    space = BinaryVector(8, (2, 4))
    train = (torch.rand(300, 8, generator=rng(5)) < torch.linspace(0.2, 0.8, 8)).float()
    model = fit(build("histogram", space, "synthetic2d", bits_per_axis=(2,)), fixed(space, train))
    states = all_states(8).float()
    p = model.log_prob(states, rng=rng()).double().exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-6)
    x = torch.tensor([[1.0, 0, 0, 1, 0, 1, 1, 0]])
    leading = [0, 1, 4, 5]
    count = int((train[:, leading] == x[:, leading]).all(1).sum())
    assert count > 0
    expected = (count + 0.02) / (300 + 0.02 * 16) / 16  # 16 cells of 16 states
    assert float(model.log_prob(x, rng=rng()).exp()) == pytest.approx(expected, rel=1e-5)


def test_histogram_samples_have_its_probabilities() -> None:
    space = BinaryVector(6, (2, 3))
    train = (torch.rand(300, 6, generator=rng(6)) < torch.linspace(0.1, 0.7, 6)).float()
    model = fit(build("histogram", space, "synthetic2d", bits_per_axis=(1, 2)), fixed(space, train))
    num = 40_000
    x = model.sample(num, rng=rng(7))
    space.validate(x)
    index = (x @ 2.0 ** torch.arange(5, -1, -1)).long()
    p = model.log_prob(all_states(6).float(), rng=rng()).double().exp()
    z = (torch.bincount(index, minlength=64) / num - p) / (p * (1 - p) / num).sqrt()
    assert z.abs().max() < 5 and z.square().mean() == pytest.approx(1.0, abs=0.6)


def test_histogram_chooses_its_cells_on_validation_data() -> None:
    space = BinaryVector(16, (2, 8))
    points = torch.rand(20_000, 16, generator=rng(8)) < 0.5
    points[:, [2, 3, 10, 11]] = False  # structure down to the fourth bit of either axis
    points = points.float()
    held_out = points[10_000:]
    few = fit(build("histogram", space, "synthetic2d"), fixed(space, points[:30], validation=held_out))
    many = fit(build("histogram", space, "synthetic2d"), fixed(space, points[:10_000], validation=held_out))
    assert int(many.bits) == 4 and int(few.bits) < 5
    assert len(many.log_mass) == 4**8  # candidates that the space lacks are skipped
    nll = -many.log_prob(held_out, rng=rng()).mean()
    assert float(nll) == pytest.approx(12 * math.log(2), abs=0.02)


def test_histogram_refuses_what_is_no_plane() -> None:
    with pytest.raises(UserError, match="layout"):
        build("histogram", BinaryVector(9, (3, 3)), "synthetic2d")


def test_truth_hands_on_and_says_what_it_lacks() -> None:
    space = BinaryVector(16, (4, 4))
    J = couplings(4, 0.2)
    model = build("truth", space, "ising")
    with pytest.raises(MissingCapability, match="stages"):
        model.couplings()
    fit(model, fixed(space, torch.zeros(2, 16), truth=IsingTruth(J)))
    assert torch.equal(model.couplings(), J)
    with pytest.raises(MissingCapability, match="no sample"):
        model.sample(3, rng=rng())
    with pytest.raises(MissingCapability):
        fit(build("truth", space, "ising"), fixed(space, torch.zeros(2, 16)))


def neg_log_rmse(J: Tensor, truth: Tensor) -> float:
    return -math.log(float((J - truth).square().mean().sqrt()))


def ising_rows(side: int, sigma: float, num: int, names: list[str]) -> dict[str, float]:
    space = BinaryVector(side * side, (side, side))
    J = couplings(side, sigma)
    data = fixed(space, exact_samples(side, sigma, num, rng=rng(9)), truth=IsingTruth(J))
    return {name: neg_log_rmse(fit(build(name, space, "ising"), data).couplings(), J) for name in names}


def test_the_ladder_of_pseudo_likelihood_on_10x10() -> None:
    # -ln RMSE of 2000 exact samples at sigma .1; free edges with known support: -ln(sqrt(4 / D) / (2 sqrt N)) = 6.10
    rows = ising_rows(10, 0.1, 2000, ["zero_couplings", "pl_dense", "pl_known_support", "pl_tied"])
    assert rows["zero_couplings"] == pytest.approx(-math.log(0.1 * math.sqrt(4 / 100)))
    assert rows["pl_dense"] == pytest.approx(4.26, abs=0.05)
    assert rows["pl_known_support"] == pytest.approx(6.08, abs=0.15)
    assert rows["pl_tied"] > 7.5


def test_sparse_estimates_lie_between_dense_and_known_support() -> None:
    names = ["pl_dense", "pl_l1", "pl_support_refit", "pl_known_support"]
    rows = ising_rows(6, 0.15, 1000, names)
    assert rows["pl_dense"] < rows["pl_l1"] < rows["pl_known_support"]
    assert rows["pl_support_refit"] == pytest.approx(rows["pl_known_support"], abs=0.3)


@pytest.mark.parametrize("build_energy", ["pl_dense", "zero_couplings"])
def test_energies_are_the_quadratic_forms_of_the_couplings(build_energy: str) -> None:
    space = BinaryVector(9, (3, 3))
    model = fit(build(build_energy, space, "ising"), fixed(space, exact_samples(3, 0.1, 200, rng=rng(2))))
    x = exact_samples(3, 0.1, 5, rng=rng(3))
    s = 2 * x.double() - 1
    expected = [-float(row @ model.couplings() @ row) for row in s]
    assert model.energy(x).tolist() == pytest.approx(expected)
