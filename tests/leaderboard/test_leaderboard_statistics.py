"""Ranking's statistics against scipy and against cases worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gmbench.leaderboard.statistics import holm_with_the_best, mean, t_quantile, two_sided_t, variance

P_VALUES = st.lists(st.floats(0, 1), max_size=8)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 10, 29, 100, 1001])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, -2.0, 2.7764, 5.0, 12.0])
def test_t_tail(df: int, t: float) -> None:
    assert two_sided_t(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-9, abs=1e-13)


def test_t_tail_of_infinity() -> None:
    assert two_sided_t(math.inf, 4) == two_sided_t(-math.inf, 1) == 0


@pytest.mark.parametrize("df", [1, 2, 4, 9, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_t_quantile(df: int, confidence: float) -> None:
    assert t_quantile(confidence, df) == pytest.approx(stats.t.ppf(0.5 + confidence / 2, df), rel=1e-8)


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
