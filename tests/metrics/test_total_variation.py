"""Total variation over cells: exact values, simulation null, coverage, and its ability to separate."""

from __future__ import annotations

import math

import pytest
import torch

from gmbench.metrics.total_variation import exact_total_variation, total_variation, total_variation_null

P = torch.tensor([0.4, 0.3, 0.2, 0.1])
Q = torch.tensor([0.1, 0.2, 0.3, 0.4])


def test_exact_values() -> None:
    assert exact_total_variation(P, Q).value == pytest.approx(0.4)
    assert exact_total_variation(P, P).value == 0
    assert exact_total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).value == 1


def test_counts_by_hand() -> None:
    estimate = total_variation(torch.tensor([0, 0, 3, 1]), P)
    assert estimate.value == pytest.approx(0.5 * (0.1 + 0.05 + 0.2 + 0.15))
    assert estimate.kind == "upper_bound" and estimate.n == 4


def test_null_matches_the_exact_expectation_of_two_cells() -> None:
    # With two cells of mass 1/2 the plug-in is |Bin(n, 1/2) / n - 1/2|.
    n, rng = 10, torch.Generator().manual_seed(0)
    pmf = [math.comb(n, k) / 2**n for k in range(n + 1)]
    mean = sum(p * abs(k / n - 0.5) for k, p in enumerate(pmf))
    sd = math.sqrt(sum(p * (abs(k / n - 0.5) - mean) ** 2 for k, p in enumerate(pmf)))
    null = total_variation_null(torch.tensor([0.5, 0.5]), n, num_draws=4000, rng=rng)
    assert null.mean == pytest.approx(mean, abs=3 * sd / math.sqrt(4000))
    assert null.sd == pytest.approx(sd, rel=0.1)


def test_a_perfect_sampler_scores_a_fifth_on_a_fine_uniform_grid() -> None:
    rng = torch.Generator().manual_seed(1)
    cells = torch.full((1024,), 1 / 1024)
    null = total_variation_null(cells, 4000, num_draws=50, rng=rng)
    # Each cell is about Poisson(3.9): mean |n_c - λ| = 2 λ^(⌊λ⌋+1) e^-λ / ⌊λ⌋!
    rate = 4000 / 1024
    deviation = 2 * math.exp(-rate) * rate ** (math.floor(rate) + 1) / math.factorial(math.floor(rate))
    assert null.mean == pytest.approx(0.5 * 1024 * deviation / 4000, rel=0.01)
    assert null.mean == pytest.approx(0.2, abs=0.01)
    draws = torch.multinomial(cells, 4000, replacement=True, generator=rng)
    assert abs(total_variation(draws, cells).value - null.mean) < 4 * null.sd


def test_separates_a_wrong_sampler_from_the_truth() -> None:
    rng = torch.Generator().manual_seed(2)
    null = total_variation_null(P, 1000, num_draws=100, rng=rng)
    right = total_variation(torch.multinomial(P, 1000, replacement=True, generator=rng), P)
    wrong = total_variation(torch.multinomial(Q, 1000, replacement=True, generator=rng), P)
    assert abs(right.value - null.mean) < 4 * null.sd
    assert wrong.value > null.mean + 20 * null.sd


def test_standard_error_covers_away_from_the_null_and_the_bias_is_upward() -> None:
    rng = torch.Generator().manual_seed(3)
    truth, inside = exact_total_variation(Q, P).value, 0
    for _ in range(400):
        e = total_variation(torch.multinomial(Q, 300, replacement=True, generator=rng), P)
        assert e.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
    assert 0.91 <= inside / 400 <= 0.98
    few = [total_variation(torch.multinomial(P, 30, replacement=True, generator=rng), P).value for _ in range(200)]
    assert min(few) >= 0 and sum(few) / 200 > 0.05


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        total_variation(torch.tensor([0]), torch.tensor([0.5, 0.4]))
    with pytest.raises(ValueError, match="integers"):
        total_variation(torch.tensor([4]), P)
    with pytest.raises(ValueError, match="integers"):
        total_variation(torch.tensor([0.0]), P)
    with pytest.raises(ValueError, match="empty"):
        total_variation(torch.zeros(0, dtype=torch.int64), P)
    with pytest.raises(ValueError, match="shape"):
        exact_total_variation(P, torch.tensor([0.5, 0.5]))
