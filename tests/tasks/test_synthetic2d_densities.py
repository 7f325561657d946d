"""The seven densities against their generators' formulas, independent integrals and their own samples."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from gmbench.tasks.discrete.synthetic2d.cells import cell_edges, cell_index
from gmbench.tasks.discrete.synthetic2d.densities import NAMES, density

HALF_WIDTH = 6.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def masses(name: str, num_cells: int) -> np.ndarray:
    edges = cell_edges(HALF_WIDTH, num_cells)
    return density(name).box_masses(edges, edges).flatten().numpy()


def chi_square_p(points: Tensor, name: str, num_cells: int = 40) -> float:
    """p-value of the counts of points in cells with an expectation of at least 10, the rest pooled."""
    expected = masses(name, num_cells) * len(points)
    observed = torch.bincount(cell_index(points, HALF_WIDTH, num_cells), minlength=num_cells**2).numpy()
    large = expected >= 10
    observed = np.append(observed[large], observed[~large].sum())
    expected = np.append(expected[large], max(expected[~large].sum(), 1e-9))
    if expected[-1] < 1:
        if observed[-1] > 10:
            return 0.0
        observed, expected = observed[:-1], expected[:-1]
    return float(stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


@pytest.mark.parametrize("name", NAMES)
def test_integrates_to_one(name: str) -> None:
    step = 0.0625 if name == "checkerboard" else 0.08
    line = torch.arange(-HALF_WIDTH + step / 2, HALF_WIDTH, step, dtype=torch.float64)
    total = density(name).log_density(torch.cartesian_prod(line, line)).exp().sum() * step**2
    assert float(total) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_masses(name: str) -> None:
    points = density(name).sample(200_000, rng=generator(1))
    assert points.shape == (200_000, 2) and points.dtype == torch.float64
    assert chi_square_p(points, name) > 1e-3
    assert chi_square_p(points + 0.03, name) < 1e-3  # the test sees a shift of .03


@pytest.mark.parametrize("name", NAMES)
def test_entropy_is_the_mean_of_minus_log_density(name: str) -> None:
    values = -density(name).log_density(density(name).sample(8_000, rng=generator(2)))
    error = float(values.mean()) - density(name).entropy(HALF_WIDTH)
    assert abs(error) < 4 * float(values.std()) / math.sqrt(len(values)) + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_grid_density_and_log_density_agree(name: str) -> None:
    line = torch.linspace(-3.51, 3.47, 30, dtype=torch.float64)
    one_by_one = density(name).log_density(torch.cartesian_prod(line, line)).exp().reshape(30, 30)
    torch.testing.assert_close(density(name).grid_density(line, line), one_by_one, rtol=1e-10, atol=1e-14)


def test_circles_closed_form() -> None:
    points = torch.randn(200, 2, generator=generator(), dtype=torch.float64) * 2
    r, variance = points.norm(dim=1).numpy(), 0.24**2
    terms = [special.ive(0, r * R / variance) * np.exp(-((r - R) ** 2) / (2 * variance)) for R in (3.0, 1.5)]
    truth = np.log(sum(terms) / (4 * np.pi * variance))
    np.testing.assert_allclose(density("circles").log_density(points).numpy(), truth, atol=1e-9)


def curve_integral(name: str, point: np.ndarray) -> float:
    """Density of a point by adaptive quadrature over the parameter, written from the generator's formula."""
    x, y = point

    def gauss(dx: float, dy: float, sd: float) -> float:
        return math.exp(-(dx * dx + dy * dy) / (2 * sd * sd)) / (2 * math.pi * sd * sd)

    def box(z: float) -> float:  # .5 u / 3 + N(0, .1^2)
        return float(special.ndtr(z / 0.1) - special.ndtr((z - 0.5 / 3) / 0.1)) / (0.5 / 3)

    def swissroll(u: float) -> float:
        t = 1.5 * math.pi * (1 + 2 * u)
        return gauss(x - t * math.cos(t) / 5, y - t * math.sin(t) / 5, 0.2)

    def moons(u: float) -> float:
        t = math.pi * u
        outer = gauss(x - (2 * math.cos(t) - 1), y - (2 * math.sin(t) - 0.2), 0.2)
        inner = gauss(x - (2 * (1 - math.cos(t)) - 1), y - (2 * (1 - math.sin(t) - 0.5) - 0.2), 0.2)
        return (outer + inner) / 2

    def spirals(u: float) -> float:
        n = 3 * math.pi * math.sqrt(u)
        a, b = -n * math.cos(n) / 3, n * math.sin(n) / 3
        return (box(x - a) * box(y - b) + box(-x - a) * box(-y - b)) / 2

    function = {"swissroll": swissroll, "moons": moons, "2spirals": spirals}[name]
    cuts = np.linspace(0, 1, 41)
    parts = (integrate.quad(function, a, b, epsabs=1e-13)[0] for a, b in pairwise(cuts))
    return math.log(sum(parts))


@pytest.mark.parametrize("name", ["2spirals", "moons", "swissroll"])
def test_curves_against_adaptive_quadrature(name: str) -> None:
    points = density(name).sample(8, rng=generator(3)) + 0.2 * torch.randn(8, 2, generator=generator(4))
    truth = [curve_integral(name, point) for point in points.numpy()]
    np.testing.assert_allclose(density(name).log_density(points).numpy(), truth, atol=1e-7)


def test_pinwheel_solves_its_twist() -> None:
    """Near one arm's axis there is one dominant term, whose preimage is known without solving anything."""
    r, v = np.array([0.9, 1.2, 1.6, 1.9]), np.array([0.05, -0.1, 0.02, -0.05])
    a = 2 * math.pi * 3 / 5 + 0.25 * np.exp(r)
    points = torch.from_numpy(2 * np.stack([r * np.cos(a) + v * np.sin(a), -r * np.sin(a) + v * np.cos(a)], 1))
    latent = stats.norm.logpdf(r, 1, 0.3) + stats.norm.logpdf(v, 0, 0.1)
    truth = latent - np.log(1 + v * 0.25 * np.exp(r)) - math.log(5 * 4)
    np.testing.assert_allclose(density("pinwheel").log_density(points).numpy(), truth, atol=1e-5)


def test_pinwheel_has_five_fold_symmetry_and_an_exact_centre() -> None:
    pinwheel = density("pinwheel")
    points = pinwheel.sample(500, rng=generator(5))
    c, s = math.cos(2 * math.pi / 5), math.sin(2 * math.pi / 5)
    turned = points @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    torch.testing.assert_close(pinwheel.log_density(points), pinwheel.log_density(turned), rtol=0, atol=1e-9)
    origin = float(pinwheel.log_density(torch.zeros(1, 2)))
    assert origin == pytest.approx(stats.norm.logpdf(0, 1, 0.3) + stats.norm.logpdf(0, 0, 0.1) - math.log(4))


def test_checkerboard_support() -> None:
    board = density("checkerboard")
    points = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [3.9, 3.9], [3.9, 1.9], [4.1, 0.5], [-3.9, -3.9]])
    expected = torch.tensor([True, False, True, False, False, True])
    assert (board.log_density(points).isfinite() == expected).all()
    assert (board.log_density(board.sample(10_000, rng=generator())) == -math.log(32)).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "checkerboard"])
def test_finite_and_falling_far_away(name: str) -> None:
    values = density(name).log_density(torch.tensor([[5.0, 5.0], [5.5, 5.5]]))
    assert values.isfinite().all() and values[1] < values[0] < -20


@pytest.mark.parametrize("name", ["circles", "moons", "swissroll", "2spirals"])
def test_points_are_not_stratified_along_the_curve(name: str) -> None:
    """Counts in cells as long as the noise scatter as independent counts do, neither more nor less."""
    p = [chi_square_p(density(name).sample(4_000, rng=generator(seed)), name, 12) for seed in range(10)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_order_is_independent(name: str) -> None:
    cells = cell_index(density(name).sample(20_000, rng=generator(6)), HALF_WIDTH, 8).reshape(2, -1)
    counts = torch.stack([half.bincount(minlength=64) for half in cells])
    assert stats.chi2_contingency(counts[:, counts.sum(0) > 20].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_sampling_uses_only_its_generator(name: str) -> None:
    state = torch.get_rng_state()
    first, again = (density(name).sample(50, rng=generator(7)) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(state, torch.get_rng_state())


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="2spirals"):
        density("3spirals")
