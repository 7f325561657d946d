"""The Frechet distance: other libraries' formulas, degenerate covariances, its error, its side, and that it moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gmbench.metrics.frechet import frechet_distance

F64 = torch.float64


def gaussian(num: int, dim: int, rng: torch.Generator, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    mix = torch.linspace(0.5, 1.5, dim, dtype=F64)
    return torch.randn(num, dim, generator=rng, dtype=F64) * mix * scale + shift


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), torch.cov(x.T)


def true_distance(dim: int, scale: float, shift: float) -> float:
    """Of `gaussian` from its own scale 1 and shift 0, whose covariances commute."""
    return dim * shift**2 + float(torch.linspace(0.5, 1.5, dim, dtype=F64).square().sum()) * (scale - 1) ** 2


@pytest.mark.parametrize(("n", "m", "dim"), [(300, 200, 16), (500, 700, 64), (80, 90, 70)])
def test_agrees_with_torchmetrics_and_scipy(n: int, m: int, dim: int) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    linalg = pytest.importorskip("scipy.linalg")
    rng = torch.Generator().manual_seed(n)
    x, y = gaussian(n, dim, rng, scale=1.2, shift=0.1), gaussian(m, dim, rng)
    found = frechet_distance(x, y)
    assert found.value == pytest.approx(float(fid._compute_fid(*moments(x), *moments(y))), rel=1e-8)
    (mx, cx), (my, cy) = ((one.numpy() for one in moments(points)) for points in (x, y))
    root = np.trace(linalg.sqrtm(cx @ cy)).real
    assert found.value == pytest.approx(((mx - my) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * root, rel=1e-8)
    assert frechet_distance(y, x).value == pytest.approx(found.value, rel=1e-10)
    assert frechet_distance(y, x).stderr == pytest.approx(found.stderr, rel=1e-8)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 400), (400, 20)])
def test_fewer_points_than_features(n: int, m: int) -> None:
    """The cross term is the nuclear norm of the products of centred points, whatever the ranks."""
    rng = torch.Generator().manual_seed(1)
    x, y = gaussian(n, 48, rng, scale=1.2), gaussian(m, 48, rng)
    (mx, cx), (my, cy) = moments(x), moments(y)
    nuclear = torch.linalg.svdvals((x - mx) @ (y - my).T).sum() / math.sqrt((n - 1) * (m - 1))
    reference = float((mx - my).square().sum() + cx.trace() + cy.trace() - 2 * nuclear)
    assert frechet_distance(x, y).value == pytest.approx(reference, rel=1e-12)


def test_features_that_are_constant_or_copies() -> None:
    rng = torch.Generator().manual_seed(2)
    x, y = gaussian(200, 6, rng, scale=1.3), gaussian(150, 6, rng)
    found = frechet_distance(x, y)
    # A feature that is 2 here and 0 there adds 4; a copy of all features doubles the distance.
    constant = torch.full((200, 1), 2.0, dtype=F64)
    flat_x, flat_y = torch.cat([x, constant], 1), torch.cat([y, torch.zeros_like(constant[:150])], 1)
    assert frechet_distance(flat_x, flat_y).value == pytest.approx(found.value + 4, rel=1e-9)
    twice = frechet_distance(torch.cat([x, x], 1), torch.cat([y, y], 1))
    assert twice.value == pytest.approx(2 * found.value, rel=1e-9)
    assert twice.stderr == pytest.approx(2 * (found.stderr or 0), rel=1e-6)


def test_never_nan() -> None:
    rng = torch.Generator().manual_seed(3)
    x = gaussian(50, 8, rng)
    zeros = torch.zeros(40, 8)
    assert frechet_distance(zeros, zeros + 2).value == 32
    assert frechet_distance(zeros, zeros).value == 0 and frechet_distance(zeros, zeros).stderr == 0
    assert frechet_distance(x, zeros).value == pytest.approx(float(x.mean(0).square().sum() + x.var(0).sum()))
    assert frechet_distance(x, x).value < 1e-12
    assert frechet_distance(x * 1e100, -x * 1e100 + 1e101).value == pytest.approx(
        frechet_distance(x, -x + 10).value * 1e200
    )
    assert frechet_distance(x * 1e200, -x * 1e200 + 1e201).value == math.inf
    outlier = torch.cat([x, torch.full((1, 8), 1e9, dtype=F64)])
    assert math.isfinite(frechet_distance(outlier, x).value)


def test_is_conservative_and_its_excess_falls_with_the_number_of_points() -> None:
    rng = torch.Generator().manual_seed(4)
    truth = true_distance(12, 1.2, 0.1)
    excess = {}
    for num in (60, 240):
        values = [frechet_distance(gaussian(num, 12, rng, scale=1.2, shift=0.1), gaussian(num, 12, rng)).value
                  for _ in range(60)]  # fmt: skip
        excess[num] = float(np.mean(values)) - truth
        assert excess[num] > 3 * np.std(values) / math.sqrt(60)
    assert frechet_distance(gaussian(240, 12, rng), gaussian(240, 12, rng)).kind == "upper_bound"
    assert 2.5 < excess[60] / excess[240] < 6  # the excess falls like 1/N


@pytest.mark.parametrize(
    ("dim", "n", "m", "scale", "low", "high"),
    [
        (12, 300, 200, 1.6, 0.87, 1.15),
        (40, 300, 300, 1.4, 0.87, 1.25),
        (12, 300, 300, 1.0, 1.0, 1.7),  # at the null
        (60, 40, 200, 1.2, 0.9, 1.5),  # fewer points than features
    ],
)
def test_standard_error_is_the_spread_of_the_plug_in(
    dim: int, n: int, m: int, scale: float, low: float, high: float
) -> None:
    rng = torch.Generator().manual_seed(5)
    shift = 0.3 if scale > 1 else 0.0
    found = [
        frechet_distance(gaussian(n, dim, rng, scale=scale, shift=shift), gaussian(m, dim, rng)) for _ in range(150)
    ]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([one.stderr for one in found])
    assert low < float(errors.square().mean().sqrt() / values.std()) < high
    inside = ((values - values.mean()).abs() < 1.96 * errors).float().mean()
    assert float(inside) >= 0.9


def test_separates_wrong_samples_from_right_ones() -> None:
    rng = torch.Generator().manual_seed(6)
    real = gaussian(500, 16, rng)
    floor = frechet_distance(gaussian(500, 16, rng), real)
    for wrong in (
        gaussian(500, 16, rng, shift=0.3),
        gaussian(500, 16, rng, scale=1.4),
        gaussian(500, 16, rng)[:1].expand(500, -1),
    ):
        far = frechet_distance(wrong, real)
        assert far.value - floor.value > 4 * math.hypot(far.stderr or 0, floor.stderr or 0)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(5), torch.zeros(5, 3), "must have shape"),
        (torch.zeros(5, 2), torch.zeros(5, 3), "same features"),
        (torch.zeros(1, 3), torch.zeros(5, 3), "at least 2"),
        (torch.full((5, 3), math.nan), torch.zeros(5, 3), "must be finite"),
    ],
)
def test_refuses_what_is_no_pair_of_feature_sets(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)
