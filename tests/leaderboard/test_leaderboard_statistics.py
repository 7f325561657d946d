"""Ranking's statistics against scipy and against cases worked by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gmbench.leaderboard.statistics import (
    Part,
    half_width,
    holm_with_the_best,
    mean,
    p_value,
    t_above,
    two_sided_t,
    variance,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=8)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 29, 100, 1001])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, -2.0, 2.7764, 5.0, 12.0])
def test_t_tail(df: int, t: float) -> None:
    assert two_sided_t(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9, abs=1e-13)


def test_t_tail_of_infinity() -> None:
    assert two_sided_t(math.inf, 4) == two_sided_t(-math.inf, 1) == 0


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 100])
@pytest.mark.parametrize("p", [1.0, 0.5, 0.05, 0.001, 1e-6])
def test_t_above(df: int, p: float) -> None:
    assert t_above(p, df) == pytest.approx(stats.t.isf(p / 2, df), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 10.0, 1e4])
def test_the_interval_of_seeds_and_points_covers(num_seeds: int, ratio: float) -> None:
    """At least in 95 of 100 cases, and where one part is all of the noise, in no more than it must."""
    rng, num_points, inside = random.Random(num_seeds), 38, 0
    num_repeats = 1500
    for _ in range(num_repeats):
        seeds = [rng.gauss(0, math.sqrt(ratio * num_seeds)) for _ in range(num_seeds)]
        points = [rng.gauss(0, math.sqrt(num_points)) for _ in range(num_points)]
        parts = [(variance(seeds) / num_seeds, num_seeds - 1), (variance(points) / num_points, num_points - 1)]
        inside += abs(mean(seeds) + mean(points)) <= half_width(parts)
    lowest = 0.95 - 3 * math.sqrt(0.95 * 0.05 / num_repeats)
    assert lowest < inside / num_repeats < (0.97 if ratio in (0.0, 1e4) else 1.0)


@given(st.lists(st.tuples(st.floats(0.01, 10), st.sampled_from([1, 2, 3, 4, 9, 37, 5000])), min_size=1, max_size=3),
       st.floats(0.001, 0.9))  # fmt: skip
def test_a_p_value_is_where_the_interval_ends(parts: list[Part], p: float) -> None:
    assert p_value(half_width(parts, p), parts) == pytest.approx(p, rel=1e-5)
    assert p_value(-half_width(parts, p), parts) == pytest.approx(p, rel=1e-5)


def test_p_values_without_noise_and_far_away() -> None:
    assert p_value(0.1, [(0.0, 4)]) == p_value(0.1, []) == 0
    assert p_value(0.0, [(0.0, 4)]) == p_value(0.0, [(1.0, 4)]) == 1
    assert p_value(3.0, [(1.0, 4), (0.0, 1)]) == pytest.approx(two_sided_t(3.0, 4), rel=1e-6)
    assert 0 < p_value(1e6, [(1.0, 1), (1.0, 2000)]) < 1e-5 and p_value(1e9, [(1.0, 2000)]) < 1e-10


def test_mean_and_variance() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3
    assert variance([1.0, 2.0, 6.0]) == 7
    assert mean([1.0, math.inf]) == mean([-math.inf, math.inf]) == math.inf
    assert mean([1.0, -math.inf]) == -math.inf


def test_holm_with_the_best_by_hand() -> None:
    # Three comparisons are of four rows, hence six pairs; then three, then one.
    assert holm_with_the_best([0.01, 0.001, 0.3]) == pytest.approx([0.03, 0.006, 0.3])
    assert holm_with_the_best([0.03]) == [0.03]
    assert holm_with_the_best([0.01, 0.02]) == pytest.approx([0.03, 0.03])  # none below the one before
    assert holm_with_the_best([]) == []


@given(P_VALUES, st.floats(0.001, 0.999))
def test_holm_with_the_best_rejects_as_the_sequential_procedure_does(p_values: list[float], level: float) -> None:
    left, rejected = dict(enumerate(p_values)), set()
    while left:
        smallest = min(left, key=lambda i: left[i])
        if math.comb(len(left) + 1, 2) * left[smallest] > level:
            break
        rejected.add(smallest)
        del left[smallest]
    assert {i for i, p in enumerate(holm_with_the_best(p_values)) if p <= level} == rejected
