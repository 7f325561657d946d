"""The Ising task as a whole: its protocol by enumeration, and what it says of right and wrong models."""

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
from gmbench.measuring import Measured, measure
from gmbench.model import Likelihood
from gmbench.plugin import TaskCard, read_manifest
from gmbench.published import read_published
from gmbench.samplers.gibbs import GibbsSweep
from gmbench.task import Context, Draws, Measurement
from gmbench.tasks.discrete.ising.exact import all_states, log_partition
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.samples import exact_samples
from gmbench.tasks.discrete.ising.task import Ising, Truth

FOLDER = Path(__file__).parents[2] / "tasks" / "discrete" / "ising"
SMALL = "lattice=4x4,sigma=0.2"


def card() -> TaskCard:
    found = read_manifest(FOLDER)
    assert isinstance(found, TaskCard)
    return found


def task(variant: str = SMALL, track: str = "smoke", **budget: int) -> Ising:
    made = Ising(card(), card().variant(variant).factors, track)
    made.budget.update(budget)
    return made


def one(made: Ising, metric: str, model: Any, seed: int = 1) -> Measurement:
    return made.measure(metric, model, Context(rng(seed), Draws(model, rng(seed + 100))))


class Quadratic:
    """log f = s'Js + constant, with J and its energy on offer."""

    def __init__(self, J: Tensor, constant: float = 0.0) -> None:
        self.J, self.constant = J, constant

    def couplings(self) -> Tensor:
        return self.J

    def energy(self, x: Tensor) -> Tensor:
        s = 2 * x.double() - 1
        return -((s @ self.J.double()) * s).sum(1) - self.constant


class Explicit:
    """A normalised model: samples and log-probabilities, exact or whatever bound the caller claims."""

    def __init__(self, sample: Any, log_prob: Any, likelihood: Likelihood | None = None) -> None:
        self._sample, self._log_prob = sample, log_prob
        self.likelihood = likelihood or Likelihood()

    def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
        x: Tensor = self._sample(num, rng)
        return x

    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        value: Tensor = self._log_prob(x)
        return value


class TruthAsModel(Quadratic):
    likelihood = Likelihood()

    def __init__(self, made: Ising) -> None:
        self.truth = made.truth
        super().__init__(made.truth.couplings())

    def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
        return self.truth.sample(num, rng=rng)

    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        return self.truth.log_prob(x)


def kl(log_p: Tensor, log_q: Tensor) -> float:
    return float((log_p.exp() * (log_p - log_q)).sum())


# --- the protocol ---


@pytest.mark.parametrize("sigma", [0.2, -0.15])
def test_the_protocol_by_enumeration(sigma: float) -> None:
    """Periodic; log p = s'Js with J = sigma A; (i,j) and (j,i) both count; spins s = 2x - 1."""
    made = Ising(card(), {"lattice": "4x4", "sigma": str(sigma)}, "smoke")
    x = all_states(16)
    s = (2 * x - 1).double().reshape(-1, 4, 4)
    total = torch.zeros(len(x), dtype=torch.float64)
    for r, c in itertools.product(range(4), range(4)):
        for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1)):  # every ordered pair: an edge is met twice
            total += sigma * s[:, r, c] * s[:, (r + dr) % 4, (c + dc) % 4]
    log_p = made.truth.log_prob(x)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(log_p, total - total.logsumexp(0), rtol=0, atol=1e-11)
    torch.testing.assert_close(-made.truth.energy(x), total, rtol=0, atol=1e-11)
    aligned = float((log_p.exp() * s[:, 0, 0] * s[:, 0, 3]).sum())  # neighbours across the boundary
    assert aligned * sigma > 0 and abs(aligned) > 0.1  # ferromagnetic where sigma > 0
    J = made.truth.couplings()
    assert J.equal(J.T) and not J.diagonal().any() and float(J.sum()) == pytest.approx(sigma * 64)


def test_one_flip_changes_log_p_by_four_sigma_times_the_field() -> None:
    made = task()
    x = torch.ones(1, 16)
    y = x.clone()
    y[0, 5] = 0
    gain = float(made.truth.log_prob(x) - made.truth.log_prob(y))
    assert gain == pytest.approx(4 * 0.2 * 4)  # 4 sigma sum_j s_j with four aligned neighbours: K = 2 sigma an edge


def test_samples_follow_the_truth_that_scores_them() -> None:
    made = task()
    x = made.truth.sample(20_000, rng=rng(3))
    log_p = made.truth.log_prob(all_states(16))
    mean = float(log_p.exp() @ log_p)
    variance = float(log_p.exp() @ (log_p - mean).square())
    assert float(made.truth.log_prob(x).mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / 20_000))


def test_every_variant_makes_a_task_whose_space_is_its_lattice() -> None:
    for variant in card().variants:
        for track in variant.tracks:
            made = Ising(card(), variant.factors, track)
            side = int(variant.factors["lattice"].split("x")[0])
            assert made.space.dim == side**2 and made.space.layout == (side, side)
            assert made.truth.sigma == float(variant.factors["sigma"])
            assert {"num_test", "num_samples", "ais_chains", "ais_steps", "ess_chains", "ess_steps"} == set(made.budget)


# --- data ---


def test_data_are_a_function_of_the_seed_and_their_parts_never_overlap() -> None:
    made = task("lattice=9x9,sigma=-0.1")
    first, again, other = made.data(0), task("lattice=9x9,sigma=-0.1").data(0), made.data(1)
    assert first.train is not None and again.train is not None and other.train is not None
    assert first.train.equal(again.train) and first.validation.equal(again.validation)
    assert first.train.shape == (2000, 81) and first.validation.shape == (500, 81)
    made.space.validate(first.train)
    # 81 nearly independent spins: a row that two sets share would mean that they share a stream.
    seen: list[Tensor] = []

    class Spy(TruthAsModel):
        def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
            seen.append(x)
            return super().log_prob(x, rng=rng)

    one(made, "excess_nats", Spy(made))
    sets = [first.train, first.validation, other.train, other.validation, torch.cat(seen)]
    rows = [{bytes(row) for row in part.to(torch.uint8).numpy()} for part in sets]
    for a, b in itertools.combinations(rows, 2):
        assert not a & b


def test_batches_are_rows_of_the_training_set() -> None:
    data = task().data(0)
    assert data.train is not None
    known = {bytes(row) for row in data.train.to(torch.uint8).numpy()}
    batch = data.draw(50, rng(2))
    assert {bytes(row) for row in batch.to(torch.uint8).numpy()} <= known
    assert batch.equal(data.draw(50, rng(2))) and not batch.equal(data.draw(50, rng(3)))


def test_test_points_depend_on_neither_the_model_nor_the_runs_seed() -> None:
    seen: list[Tensor] = []

    def log_prob(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.full((len(x),), -16 * math.log(2.0))

    for seed in (1, 2):
        one(task(), "excess_nats", Explicit(None, log_prob), seed)
    assert torch.equal(seen[0], seen[1])


# --- the truth has every metric's null ---


@pytest.mark.parametrize("variant", [SMALL, "lattice=9x9,sigma=-0.1"])
def test_the_truth_has_no_excess_and_perfect_couplings(variant: str) -> None:
    made = task(variant)
    found = one(made, "excess_nats", TruthAsModel(made))
    assert found.headline == "excess_nats.exact"
    assert found.estimates["excess_nats.exact"].value == 0 and not found.per_point.any()
    through_energy = found.estimates["excess_nats.ebm.exact"]
    assert through_energy.value == pytest.approx(0, abs=1e-9) and through_energy.kind == "unbiased"
    rmse = one(made, "neg_log_rmse", TruthAsModel(made))
    assert rmse.estimates["neg_log_rmse"].value == math.inf and rmse.headline == "neg_log_rmse"


def test_the_truths_moments_lie_within_the_null() -> None:
    made = task(num_samples=2000)
    runs = [one(made, "moments", TruthAsModel(made), seed).estimates for seed in range(1, 13)]
    z = torch.tensor([run["energy_per_site_error"].value / run["energy_per_site_error"].stderr for run in runs])  # type: ignore[operator]
    assert float(z.abs().max()) < 4 and float(z.square().mean()) == pytest.approx(1, abs=0.9)
    for name in ("magnetisation_tv.n2000", "correlation_rmse.n2000"):
        values, null = torch.tensor([run[name].value for run in runs]), runs[0][f"{name}.null"]
        assert all(run[f"{name}.null"] == null for run in runs)  # fixed by the task
        assert null.stderr is not None and float(((values - null.value) / null.stderr).abs().max()) < 5
        assert float(values.mean()) == pytest.approx(null.value, abs=3 * null.stderr)


def test_the_null_is_no_copy_of_the_models_draws() -> None:
    found = one(task(num_samples=200), "moments", TruthAsModel(task())).estimates
    assert found["correlation_rmse.n200"].value != found["correlation_rmse.n200.null"].value


# --- wrong models move every metric ---


def wrong_models() -> dict[str, Explicit]:
    """Half the coupling; fair bits; the truth with its sites shuffled, which keeps the magnetisation."""
    truth = task().truth
    order = torch.randperm(16, generator=rng(8))
    weak_truth = Truth(4, 0.1)
    return {
        "half": Explicit(lambda n, g: weak_truth.sample(n, rng=g), weak_truth.log_prob),
        "fair": Explicit(
            lambda n, g: torch.randint(2, (n, 16), generator=g).float(),
            lambda x: torch.full((len(x),), -16 * math.log(2.0)),
        ),
        "shuffled": Explicit(
            lambda n, g: truth.sample(n, rng=g)[:, order], lambda x: truth.log_prob(x[:, order.argsort()])
        ),
    }


@pytest.mark.parametrize("name", ["half", "fair", "shuffled"])
def test_wrong_models_are_many_standard_errors_away(name: str) -> None:
    made, model = task(num_samples=2000, num_test=2000), wrong_models()[name]
    moments = one(made, "moments", model).estimates
    energy, null = moments["energy_per_site_error"], moments["correlation_rmse.n2000.null"].value
    assert energy.stderr is not None and energy.value > 6 * energy.stderr  # weaker order: higher energy
    assert moments["correlation_rmse.n2000"].value > 3 * null
    if name == "shuffled":
        assert moments["magnetisation_tv.n2000"].value < 3 * moments["magnetisation_tv.n2000.null"].value
    else:
        assert moments["magnetisation_tv.n2000"].value > 5 * moments["magnetisation_tv.n2000.null"].value
    excess = one(made, "excess_nats", model).estimates["excess_nats.exact"]
    states = all_states(16)
    exact = kl(made.truth.log_prob(states), model.log_prob(states, rng=rng()).double())
    assert excess.stderr is not None and excess.value > 8 * excess.stderr
    assert excess.value == pytest.approx(exact, abs=4 * excess.stderr)


def test_the_sampler_that_mixes_worse_has_the_smaller_ess() -> None:
    class Sampled(Quadratic):
        def sampler(self) -> GibbsSweep:
            return GibbsSweep()

    made = task(ess_chains=8, ess_steps=64)
    free, cold = (
        one(made, "ess", Sampled(couplings(4, sigma))).estimates["ess_per_evaluation"] for sigma in (0.01, 0.3)
    )
    assert free.stderr is not None and cold.stderr is not None
    assert free.value - cold.value > 3 * math.hypot(free.stderr, cold.stderr) and cold.value > 0
    assert free.value < 2 / 16  # a sweep costs at least one evaluation a site, and makes about one independent draw


# --- log Z ---


def dense_couplings() -> Tensor:
    """Symmetric, zero diagonal, far beyond the lattice."""
    half = 0.08 * torch.randn(16, 16, generator=rng(5), dtype=torch.float64).triu(1)
    return couplings(4, 0.1) + half + half.T


def lattice_couplings(side: int) -> Tensor:
    """Couplings of both signs that vary from edge to edge of the lattice."""
    half = torch.randn(side**2, side**2, generator=rng(6), dtype=torch.float64).triu(1)
    return 0.1 * couplings(side, 1.0) * (half + half.T)


@pytest.mark.parametrize("kind", ["dense", "lattice", "lattice and a constant"])
def test_excess_of_wrong_couplings_is_their_kl_divergence(kind: str) -> None:
    made = task(num_test=2000)
    model = Quadratic(dense_couplings() if kind == "dense" else lattice_couplings(4), 3.0 * ("constant" in kind))
    log_q = torch.log_softmax(-model.energy(all_states(16)), 0)
    exact = kl(made.truth.log_prob(all_states(16)), log_q)
    found = one(made, "excess_nats", model)
    excess = found.estimates["excess_nats.ebm.exact"]
    assert found.headline == "excess_nats.ebm.exact" and excess.kind == "unbiased" and excess.stderr is not None
    assert exact > 0.05 and excess.value == pytest.approx(exact, abs=4 * excess.stderr)
    assert float(found.per_point.mean()) == pytest.approx(excess.value, abs=1e-5)
    assert found.estimates["nll.ebm.exact"].value - excess.value == pytest.approx(
        float(-made.truth.log_prob(_test_points(made)).mean()), abs=1e-6
    )


def _test_points(made: Ising) -> Tensor:
    seen: list[Tensor] = []

    def log_prob(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros(len(x))

    one(made, "excess_nats", Explicit(None, log_prob))
    return torch.cat(seen)


def test_enumeration_and_transfer_matrix_agree() -> None:
    J = lattice_couplings(4)
    found = task()._log_z_of(Quadratic(J), rng())
    assert found.estimator == "exact" and found.estimate.kind == "exact"
    assert found.estimate.value == pytest.approx(log_partition(J, 4), abs=1e-9)


def test_transfer_matrix_and_annealing_agree_and_say_which_they_are() -> None:
    made = task("lattice=9x9,sigma=-0.1", ais_steps=60, ais_chains=32)
    J = lattice_couplings(9)
    beyond = J.clone()
    beyond[0, 40] = beyond[40, 0] = 1e-9  # beyond the lattice, and too small to change log Z
    exact, annealed = (made._log_z_of(Quadratic(one), rng(7)) for one in (J, beyond))
    assert exact.estimator == "exact" and exact.estimate.kind == "exact"
    assert annealed.estimator == "ais60x32" and annealed.estimate.kind == "lower_bound"
    error, stderr = annealed.estimate.value - exact.estimate.value, annealed.estimate.stderr
    assert stderr is not None and 0 < stderr < 0.3
    assert abs(error) < 4 * stderr


def test_couplings_that_are_declined_leave_annealing() -> None:
    class Silent(Quadratic):
        def couplings(self) -> Tensor:
            raise MissingCapability("this energy has none")

    made = task("lattice=9x9,sigma=-0.1", ais_steps=3, ais_chains=4)
    assert made._log_z_of(Silent(couplings(9, -0.1)), rng()).estimator == "ais3x4"


def test_an_annealed_excess_is_optimistic_and_a_bound_on_log_p_is_conservative() -> None:
    class Both(Quadratic):
        """Its own likelihood, a lower bound, beside an energy whose log Z must be annealed."""

        likelihood = Likelihood("gfn", "traj5", "lower_bound")

        def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
            return torch.full((len(x),), -81 * math.log(2.0))

    J = couplings(9, -0.1)
    J[0, 40] = J[40, 0] = 1e-9
    found = one(task("lattice=9x9,sigma=-0.1", ais_steps=10, ais_chains=8, num_test=50), "excess_nats", Both(J))
    assert set(found.estimates) == {f"{m}.{k}" for m in ("excess_nats", "nll") for k in ("gfn.traj5", "ebm.ais10x8")}
    for metric in ("excess_nats", "nll"):
        bound, annealed = found.estimates[f"{metric}.gfn.traj5"], found.estimates[f"{metric}.ebm.ais10x8"]
        assert bound.kind == "upper_bound" and not bound.optimistic("lower")
        assert annealed.kind == "lower_bound" and annealed.optimistic("lower")
        assert "log Z" in annealed.note  # its standard error is the chains' as well as the points'
    assert found.headline == "excess_nats.gfn.traj5"


def test_a_constant_in_the_energy_does_not_change_the_excess() -> None:
    """p(x) is proportional to exp(-E(x)) by contract, so a constant is free: the 4x4 lattice gets it right."""
    made = task("lattice=9x9,sigma=-0.1", num_test=50)
    J = made.truth.couplings()
    found = [one(made, "excess_nats", Quadratic(J, c)).estimates["excess_nats.ebm.exact"].value for c in (0.0, 3.0)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


# --- couplings ---


def test_declined_or_absent_capabilities_are_said_in_words() -> None:
    class Declines:
        likelihood = Likelihood()

        def couplings(self) -> Tensor:
            raise MissingCapability("an energy that is a perceptron has no couplings")

        def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
            raise MissingCapability("no likelihood today")

        def energy(self, x: Tensor) -> Tensor:
            raise MissingCapability("no energy today")

    found: Measured = measure(task(), Declines(), 0)
    assert found.unavailable["neg_log_rmse"] == "an energy that is a perceptron has no couplings"
    assert "no likelihood today" in found.unavailable["excess_nats"]
    assert "no energy today" in found.unavailable["excess_nats"]
    assert found.unavailable["moments"] == "needs sample, which the model does not offer"
    assert set(found.unavailable) == {"neg_log_rmse", "excess_nats", "moments", "ess"} and not found.merged.estimates


def test_zero_couplings_score_as_the_card_says() -> None:
    checked = 0
    for variant in card().variants:
        lattice, sigma = variant.factors["lattice"], float(variant.factors["sigma"])
        made = Ising(card(), variant.factors, "smoke")
        zero = one(made, "neg_log_rmse", Quadratic(torch.zeros(made.space.dim, made.space.dim)))
        expected = {"10x10": 1.609, "9x9": 1.504}.get(lattice)
        if expected is not None:
            assert zero.estimates["neg_log_rmse"].value == pytest.approx(expected - math.log(abs(sigma)), abs=6e-4)
            checked += 1
    assert checked == 8 and "1.609 - ln|sigma| on 10x10 and 1.504 - ln|sigma| on 9x9" in card().notes


def test_the_sign_and_the_scale_of_couplings_count() -> None:
    J = task().truth.couplings()
    right, negative, doubled = (
        one(task(), "neg_log_rmse", Quadratic(f * J)).estimates["neg_log_rmse"].value for f in (1.01, -1.0, 2.0)
    )
    zero = one(task(), "neg_log_rmse", Quadratic(0 * J)).estimates["neg_log_rmse"].value
    assert right - zero == pytest.approx(math.log(100)) and doubled == pytest.approx(zero)
    assert zero - negative == pytest.approx(math.log(2))


# --- quoted rows ---


def test_quoted_rows_name_variants_and_metrics_that_exist() -> None:
    rows = read_published(FOLDER, card()).row
    names = {variant.name for variant in card().variants}
    assert len(rows) >= 4
    for row in rows:
        assert row.variant in names and row.metric in card().metrics and row.source
        assert "arXiv" in row.source and "secondary digest" in row.note


def test_smoke_samples_agree_with_an_exact_generator() -> None:
    """The task's own stream of samples and the module's agree in law: edge sums within their errors."""
    made = task()
    energy = made.truth.energy(made.data(4).train)  # type: ignore[arg-type]
    other = made.truth.energy(exact_samples(4, 0.2, 2000, rng=rng(1)))
    assert abs(float(energy.mean() - other.mean())) < 4 * float((energy.var() + other.var()).div(2000).sqrt())
