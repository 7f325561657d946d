"""The divergence frontier: its area against closed forms and a second way to compute it, and what moves it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.metrics.mauve import divergence_curve, frontier_area, mauve, quantised


def shares(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_area_of_what_is_apart_is_a_beta_function() -> None:
    p, q = shares(0.3, 0.7, 0, 0), shares(0, 0, 0.5, 0.5)
    for c in (1.0, 2.0, 5.0):
        expected = c * math.gamma(c + 1) * math.gamma(c) / math.gamma(2 * c + 1)
        found = float(frontier_area(p, q, scaling=c, num_weights=4001))
        assert found == pytest.approx(expected, rel=1e-4)
    assert float(frontier_area(p, q)) == pytest.approx(0.00397, rel=0.1)  # 25 weights
    assert float(frontier_area(p, p)) == pytest.approx(1)


def test_the_area_is_that_of_a_plain_loop() -> None:
    """Curve and area as in the authors' description: 25 weights, both ends, trapezia; no tensors."""

    def kl(p: np.ndarray, q: np.ndarray) -> float:
        inside = p > 0
        return float((p[inside] * np.log(p[inside] / q[inside])).sum())

    numbers = np.random.default_rng(0)
    for _ in range(5):
        p, q = numbers.dirichlet([0.3] * 12), numbers.dirichlet([0.3] * 12)
        p[3] = q[5] = 0
        p, q = p / p.sum(), q / q.sum()
        points = [(1.0, 0.0)]
        for weight in np.linspace(1e-6, 1 - 1e-6, 25):
            mixture = weight * p + (1 - weight) * q
            points.append((math.exp(-5 * kl(q, mixture)), math.exp(-5 * kl(p, mixture))))
        points.append((0.0, 1.0))
        area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
        assert float(frontier_area(torch.from_numpy(p), torch.from_numpy(q))) == pytest.approx(area)
        assert float(frontier_area(torch.from_numpy(q), torch.from_numpy(p))) == pytest.approx(area)
        curve = divergence_curve(torch.from_numpy(p), torch.from_numpy(q))
        assert torch.allclose(curve, torch.tensor(points, dtype=torch.float64))


def test_shares_come_in_batches() -> None:
    p, q = torch.rand(2, 7, 9, generator=rng(), dtype=torch.float64)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    together = frontier_area(p, q)
    assert together.tolist() == pytest.approx([float(frontier_area(a, b)) for a, b in zip(p, q, strict=True)])
    with pytest.raises(ValueError, match="shares of q"):
        frontier_area(p, q[:, :5])


def test_cells_are_counted_for_each_set() -> None:
    x = torch.tensor([[0.0, 0]]).repeat(30, 1) + 0.01 * torch.randn(30, 2, generator=rng())
    y = torch.tensor([[0.0, 0], [5, 5], [5, 5]]).repeat(10, 1) + 0.01 * torch.randn(30, 2, generator=rng(1))
    of_x, of_y = quantised(x, y, num_clusters=2, rng=rng())
    assert sorted(of_x.tolist()) == [0, 30] and sorted(of_y.tolist()) == [10, 20]
    assert int(of_x.argmax()) == int(of_y.argmin())
    with pytest.raises(ValueError, match="number of points"):
        quantised(x, y, num_clusters=61, rng=rng())


def score(shift: float, seed: int, num: int = 400, num_clusters: int = 12) -> tuple[float, float]:
    x, y = torch.randn(2, num, 3, generator=rng(seed))
    found = mauve(x + shift, y, num_clusters=num_clusters, rng=rng(seed))
    assert found.stderr is not None and found.n == num
    return found.value, found.stderr


def test_it_falls_as_sets_move_apart_and_repeats() -> None:
    values = [score(shift, 1)[0] for shift in (0, 0.5, 1, 3)]
    assert values == sorted(values, reverse=True) and values[0] > 0.97 and values[-1] < 0.02
    assert score(0.5, 2) == score(0.5, 2)


@pytest.mark.parametrize("shift", [0.2, 0.6, 1.0])
def test_the_stated_error_is_that_of_repeated_draws(shift: float) -> None:
    values, errors = torch.tensor([score(shift, seed) for seed in range(40)]).unbind(1)
    assert 0.7 < float(values.std() / errors.mean()) < 1.4


@pytest.mark.parametrize(("num", "num_clusters"), [(400, 12), (1000, 50)])
def test_the_error_of_equal_distributions_is_at_most_twice_their_spread(num: int, num_clusters: int) -> None:
    values, errors = torch.tensor([score(0, seed, num, num_clusters) for seed in range(40)]).unbind(1)
    assert 0.5 < float(values.std() / errors.mean()) < 1.3


def test_one_distribution_stays_below_one_and_the_more_so_the_fewer_points() -> None:
    few, many = (sum(score(0, seed, num)[0] for seed in range(4)) / 4 for num in (60, 1500))
    assert few < many < 1
