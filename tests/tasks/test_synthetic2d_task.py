"""The plane as a task: what it says of the truth, of energies whose log Z is known, of models without structure."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.measuring import measure
from gmbench.metrics.total_variation import total_variation_null
from gmbench.model import Likelihood
from gmbench.plugin import TaskCard, read_manifest
from gmbench.published import read_published
from gmbench.samplers.gibbs import GibbsSweep
from gmbench.task import Context, Draws, Measurement
from gmbench.tasks.discrete.synthetic2d.cells import cell_masses
from gmbench.tasks.discrete.synthetic2d.densities import NAMES
from gmbench.tasks.discrete.synthetic2d.gray import all_codes
from gmbench.tasks.discrete.synthetic2d.task import Synthetic2D

FOLDER = Path(__file__).parents[2] / "tasks" / "discrete" / "synthetic2d"
# Entropies of the 32-bit codes in nats, +-.002.
FLOORS = {
    "2spirals": 20.037,
    "8gaussians": 19.977,
    "circles": 20.553,
    "moons": 19.718,
    "pinwheel": 19.546,
    "swissroll": 20.141,
    "checkerboard": 20.677,
}
PNG = b"\x89PNG\r\n\x1a\n"


def card() -> TaskCard:
    found = read_manifest(FOLDER)
    assert isinstance(found, TaskCard)
    return found


def task(density: str, n: str = "10k", bits: int = 32, track: str = "smoke", **budget: int) -> Synthetic2D:
    name = f"density={density},n={n}" + (",bits=16" if bits == 16 else "")
    made = Synthetic2D(card(), card().variant(name).factors, track)
    made.budget.update(budget)
    return made


def one(made: Synthetic2D, metric: str, model: Any, seed: int = 1) -> Measurement:
    return made.measure(metric, model, Context(rng(seed), Draws(model, rng(seed + 100))))


class TruthAsModel:
    """Samples and exact log-probabilities of the truth; `shift` moves log p, as a wrong normalisation would."""

    likelihood = Likelihood()

    def __init__(self, made: Synthetic2D, shift: float = 0.0) -> None:
        self.truth, self.shift = made.truth, shift

    def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
        return self.truth.sample(num, rng=rng)

    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        return self.truth.log_prob(x) + self.shift


class KnownEnergy:
    """The truth's log density up to a constant: its log Z is that constant."""

    def __init__(self, made: Synthetic2D, constant: float) -> None:
        self.truth, self.constant = made.truth, constant

    def energy(self, x: Tensor) -> Tensor:
        return -(self.truth.log_prob(x) + self.constant).float()


class Bits:
    """Independent bits."""

    likelihood = Likelihood()

    def __init__(self, prob: Tensor) -> None:
        self.prob = prob.double()

    def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
        return (torch.rand(num, len(self.prob), generator=rng, dtype=torch.float64) < self.prob).float()

    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        return torch.where(x > 0, self.prob, 1 - self.prob).log().sum(1)


def independent_bits(made: Synthetic2D) -> Bits:
    """The bit marginals of the truth, and no structure."""
    return Bits(made.truth.sample(50_000, rng=rng(77)).mean(0).clamp(1e-4, 1 - 1e-4))


# --- the truth ---


@pytest.mark.parametrize(("density", "bits"), [("checkerboard", 16), ("2spirals", 16), ("8gaussians", 32)])
def test_the_truth_has_no_excess(density: str, bits: int) -> None:
    made = task(density, bits=bits)
    found = one(made, "excess_nats", TruthAsModel(made))
    assert found.headline == "excess_nats.exact" and found.estimates["excess_nats.exact"].value == 0
    assert len(found.per_point) == made.budget["num_test"] and not found.per_point.any() and not found.pictures
    nll, floor = found.estimates["nll.exact"], found.estimates["nll.floor"]
    assert nll.stderr is not None and abs(nll.value - floor.value) < 4 * nll.stderr + 2e-4
    assert floor.kind == "exact" and floor.stderr is None


def test_an_excess_is_reported_to_the_last_digit() -> None:
    made = task("checkerboard", bits=16)
    found = one(made, "excess_nats", TruthAsModel(made, shift=-0.25)).estimates["excess_nats.exact"]
    assert found.value == pytest.approx(0.25, abs=1e-9) and found.stderr == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("density", ["checkerboard", "2spirals"])
def test_the_truths_samples_lie_within_the_nulls(density: str) -> None:
    made = task(density, bits=16, num_groups=10, group_size=200)
    mmd = {k: v for k, v in one(made, "mmd2", TruthAsModel(made)).estimates.items() if not k.endswith("null_sd")}
    assert len(mmd) == 3
    for key, found in mmd.items():
        assert found.stderr is not None and abs(found.value) < 3 * found.stderr, key
    tv = one(made, "total_variation", TruthAsModel(made)).estimates
    null = tv["total_variation.32x32.n2000.null"]
    assert null.stderr is not None and abs(tv["total_variation.32x32.n2000"].value - null.value) < 4 * null.stderr


@pytest.mark.parametrize("density", NAMES)
def test_floors_are_the_references(density: str) -> None:
    assert task(density).truth.entropy == pytest.approx(FLOORS[density], abs=0.002)


def test_the_16_bit_twin_is_normalised_and_coarser_by_the_bits_it_lacks() -> None:
    made = task("8gaussians", bits=16)
    assert float(made.truth.log_prob(all_codes(16)).exp().sum()) == pytest.approx(1, abs=1e-9)
    # Halving the cells' sides eight times on each axis adds 16 ln 2 where the density is smooth at their scale.
    assert task("8gaussians").truth.entropy - made.truth.entropy == pytest.approx(16 * math.log(2), abs=2e-3)


# --- log Z ---


def test_log_z_by_enumeration_on_16_bits() -> None:
    made = task("2spirals", bits=16)
    found = made._log_z_of(KnownEnergy(made, 1.5), rng())
    assert found.estimator == "exact" and found.estimate.kind == "exact"
    assert found.estimate.value == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize("density", ["8gaussians", "checkerboard"])
def test_log_z_by_strata_on_32_bits(density: str) -> None:
    made = task(density, log_z_strata_bits=14)
    found = made._log_z_of(KnownEnergy(made, -2.0), rng(3))
    assert found.estimator == "is2^14" and found.estimate.kind == "consistent"
    assert found.estimate.stderr is not None and found.estimate.stderr < 0.02
    assert found.estimate.value == pytest.approx(-2.0, abs=4 * found.estimate.stderr)


def test_strata_are_squares_and_so_beat_plain_draws_by_far() -> None:
    made = task("8gaussians", log_z_strata_bits=14)
    errors = [made._log_z_of(KnownEnergy(made, 0.0), rng(seed)).estimate.value for seed in range(6)]
    plain = made.truth.log_prob((torch.rand(2**14, 32, generator=rng(5)) < 0.5).float()).exp()
    relative_sd = float(plain.std() / plain.mean()) / 2**7
    assert float(torch.tensor(errors).square().mean().sqrt()) < 0.2 * relative_sd


def test_the_excess_of_an_energy_does_not_see_its_constant() -> None:
    made = task("8gaussians", log_z_strata_bits=14)
    found = [one(made, "excess_nats", KnownEnergy(made, c)) for c in (0.0, 7.0)]
    for one_found in found:
        excess = one_found.estimates["excess_nats.ebm.is2^14"]
        assert one_found.headline == "excess_nats.ebm.is2^14" and not excess.optimistic("lower")
        assert excess.stderr is not None and 0 < excess.stderr < 0.02 and abs(excess.value) < 4 * excess.stderr
        assert "log Z" in excess.note  # which is all the error there is
        assert one_found.pictures["energy"].startswith(PNG)
    assert found[0].estimates["excess_nats.ebm.is2^14"].value == pytest.approx(
        found[1].estimates["excess_nats.ebm.is2^14"].value, abs=1e-4
    )


def test_too_few_strata_are_called_optimistic() -> None:
    made = task("8gaussians", log_z_strata_bits=4)
    found = one(made, "excess_nats", KnownEnergy(made, 0.0)).estimates["excess_nats.ebm.is2^4"]
    assert found.kind == "lower_bound" and found.optimistic("lower")


# --- which metrics see the independent bits ---


def z_scores(made: Synthetic2D, model: Any) -> dict[str, float]:
    """Each metric of samples in units of the spread that a perfect sampler has on the same budget."""
    found = one(made, "mmd2", model).estimates
    z = {}
    for key, estimate in found.items():
        if not key.endswith(".null_sd"):
            z[key.split(".")[1]] = estimate.value / found[f"{key}.null_sd"].value
    tv = one(made, "total_variation", model).estimates
    key = next(k for k in tv if not k.endswith(".null"))
    null = tv[f"{key}.null"]
    assert null.stderr is not None
    return z | {"total_variation": (tv[key].value - null.value) / null.stderr}


@pytest.mark.parametrize("density", ["checkerboard", "2spirals"])
def test_what_separates_independent_bits_from_a_perfect_sampler(density: str) -> None:
    made = task(density, num_groups=4, group_size=500, num_permutations=100)
    made.card.protocol["rbf_bandwidths"] = [0.5]  # one is enough here
    blind, perfect = z_scores(made, independent_bits(made)), z_scores(made, TruthAsModel(made))
    assert set(blind) == {"exp_hamming", "rbf_plane", "total_variation"}
    assert all(abs(z) < 4 for z in perfect.values()), perfect
    assert blind["exp_hamming"] < 8  # nearly blind: it takes thousands of points to see anything
    assert blind["rbf_plane"] > 20 and blind["total_variation"] > 20
    assert blind["rbf_plane"] > 8 * blind["exp_hamming"]
    excess = one(made, "excess_nats", independent_bits(made)).estimates["excess_nats.exact"]
    assert excess.stderr is not None and excess.value > 20 * excess.stderr and 0.2 < excess.value < 2.5


def test_the_spread_beside_an_mmd_is_that_of_a_perfect_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """`null_sd` is of the mean over the groups, like the number that it stands beside."""
    monkeypatch.setattr(f"{Synthetic2D.__module__}.scatter_beside_data", lambda *args: PNG)  # most of the time
    made = task("checkerboard", num_groups=4, group_size=100, num_permutations=200)
    made.card.protocol["rbf_bandwidths"] = [0.5]
    runs = [one(made, "mmd2", TruthAsModel(made), seed).estimates for seed in range(1, 25)]
    key = "mmd2.rbf_plane.bw0.5.4x100"
    spread = float(torch.tensor([run[key].value for run in runs]).std())
    null = runs[0][f"{key}.null_sd"]
    assert spread == pytest.approx(null.value, rel=0.4)


def test_total_variation_is_against_the_exact_masses_with_the_null_of_its_own_count() -> None:
    made = task("checkerboard")
    found = one(made, "total_variation", TruthAsModel(made)).estimates
    masses = cell_masses(made.truth.density, made.code.half_width, 32)
    mean, sd = total_variation_null(masses, 200, num_draws=200, rng=rng(1))
    null = found["total_variation.32x32.n200.null"]
    assert null.stderr is not None and null.value == pytest.approx(mean, abs=4 * sd / math.sqrt(100))
    assert null.stderr == pytest.approx(sd, rel=0.3)
    assert found["total_variation.32x32.n200"].kind == "upper_bound"


def test_one_point_repeated_is_far_from_everything() -> None:
    made = task("checkerboard")

    class Collapsed:
        def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
            return torch.zeros(num, 32)

    z = z_scores(made, Collapsed())
    assert all(value > 10 for value in z.values()), z


# --- data ---


def rows(x: Tensor) -> set[bytes]:
    return {bytes(row) for row in x.to(torch.uint8).numpy()}


def test_a_fixed_set_is_redrawn_with_the_seed_and_shares_no_point_with_another() -> None:
    made = task("2spirals")
    first, again, other = made.data(0), task("2spirals").data(0), made.data(1)
    assert first.train is not None and again.train is not None and other.train is not None
    assert first.train.shape == (10_000, 32) and first.validation.shape == (10_000, 32)
    assert first.train.equal(again.train) and first.validation.equal(again.validation)
    made.space.validate(first.train)
    tests, _ = made._test_points(2000)
    sets = [rows(x) for x in (first.train, first.validation, other.train, other.validation, tests)]
    for a, b in itertools.combinations(sets, 2):
        # Some of 10^8 pairs meet by chance among the e^20 cells (about .3 expected); a shared stream would share all.
        assert len(a & b) < 10
    assert rows(first.draw(100, rng())) <= sets[0]
    assert not first.draw(100, rng(1)).equal(first.draw(100, rng(2)))


def test_a_training_set_is_shuffled() -> None:
    """Two halves of a set of the truth's own points have the same law; sorted arms would differ by far."""
    train = task("2spirals").data(0).train
    assert train is not None
    points = task("2spirals").code.decode(train)
    a, b = points[:5000], points[5000:]
    assert float(((a.mean(0) - b.mean(0)) / (points.std(0) * math.sqrt(2 / 5000))).abs().max()) < 4


def test_online_draws_are_fresh_and_need_no_training_set() -> None:
    made = task("2spirals", n="online")
    data = made.data(0)
    assert data.train is None
    with pytest.raises(MissingCapability, match="unlimited draws"):
        data.fixed  # noqa: B018
    generator = rng(1)
    x, y = data.draw(2000, generator), data.draw(2000, generator)
    made.space.validate(x)
    assert len(rows(x) & rows(y)) < 5 and x.equal(data.draw(2000, rng(1)))
    assert data.validation.shape == (10_000, 32)


def test_online_and_fixed_sets_have_one_law() -> None:
    fixed, online = task("8gaussians").data(3), task("8gaussians", n="online").data(3)
    assert fixed.train is not None
    x, y = fixed.train[:4000], online.draw(4000, rng(2))
    difference = (x.mean(0) - y.mean(0)).abs()
    assert float((difference / (0.5 / 4000 + 1e-12) ** 0.5).max()) < 4.5  # 32 bits, each of variance at most 1/4


def test_100k_is_ten_times_10k() -> None:
    train = task("checkerboard", n="100k").data(0).train
    assert train is not None and train.shape == (100_000, 32)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("density", NAMES)
def test_every_draw_is_a_code_inside_the_grid(density: str, bits: int) -> None:
    made = task(density, bits=bits)
    x = made.truth.sample(3000, rng=rng(4))
    made.space.validate(x)
    assert made.space.layout == (2, bits // 2) and made.space.dim == bits
    assert bool(made.truth.log_prob(x).isfinite().all())
    points = made.truth.density.sample(3000, rng=rng(4))
    assert made.code.num_outside(points) == 0
    # A decoded point lies within half a cell of where it was.
    assert float((made.code.decode(x) - points).abs().max()) <= made.code.side / 2 + 1e-12


def test_samples_anywhere_in_the_square_can_be_measured() -> None:
    """All bit vectors are cells, also those far from the data: corners, and both zeros."""
    made = task("8gaussians", num_groups=2, group_size=100)
    uniform = Bits(torch.full((32,), 0.5))
    found = measure(made, uniform, 0)
    assert not set(found.unavailable) - {"ess"}
    excess = found.merged.estimates["excess_nats.exact"]
    assert excess.value == pytest.approx(32 * math.log(2) - FLOORS["8gaussians"], abs=0.2)
    assert all(math.isfinite(one_found.value) for one_found in found.merged.estimates.values())


# --- the rest of the card ---


def test_pictures_are_png_bytes_and_the_same_each_time() -> None:
    made = task("checkerboard", bits=16)
    first, again = (one(made, "mmd2", TruthAsModel(made)).pictures for _ in range(2))
    assert set(first) == {"samples"} and first["samples"].startswith(PNG) and len(first["samples"]) > 5000
    assert first == again


def test_declined_capabilities_are_said_in_words() -> None:
    class Declines:
        def energy(self, x: Tensor) -> Tensor:
            raise MissingCapability("this energy is not for sale")

    found = measure(task("checkerboard", bits=16), Declines(), 0)
    assert found.unavailable["excess_nats"] == "this energy is not for sale"
    assert found.unavailable["mmd2"] == "needs sample, which the model does not offer"
    assert "sampler" in found.unavailable["ess"] and not found.merged.estimates


def test_ess_runs_the_models_sampler_on_its_energy() -> None:
    class Sampled(KnownEnergy):
        def energy(self, x: Tensor) -> Tensor:
            return x.sum(1)

        def sampler(self) -> GibbsSweep:
            return GibbsSweep()

    made = task("checkerboard", bits=16)
    found: Estimate = one(made, "ess", Sampled(made, 0.0)).estimates["ess_per_evaluation"]
    assert 0.2 / 17 < found.value < 3 / 16  # independent bits: a sweep, of 16 or 17 evaluations, is a fresh draw


def test_every_variant_and_track_makes_a_task() -> None:
    for variant in card().variants:
        for track in variant.tracks:
            made = Synthetic2D(card(), variant.factors, track)
            assert made.space.dim == int(variant.factors.get("bits", "32")) and made.variant["density"] in NAMES
            assert made.budget["log_z_strata_bits"] % 2 == 0  # as many bits of either coordinate
    assert {v.factors["density"] for v in card().variants} == set(NAMES)


def test_quoted_rows_name_variants_and_numbers_that_exist_and_their_gaps_are_right() -> None:
    made = task("checkerboard", bits=16)
    keys = set(one(made, "excess_nats", TruthAsModel(made)).estimates) | set(card().metrics)
    quoted = read_published(FOLDER, card()).row
    assert len(quoted) >= 4
    for row in quoted:
        assert row.variant in {variant.name for variant in card().variants} and "arXiv" in row.source
        assert any(key == row.metric or key.startswith(f"{row.metric}.") for key in keys), row.metric
        floor = task(row.variant.split(",")[0].removeprefix("density=")).truth.entropy
        gap = float(row.note.rpartition("the gap is ")[2])
        assert row.value - floor == pytest.approx(gap, abs=0.0025)
