"""log Z by enumeration and by importance sampling, against closed forms and each other."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gmbench.metrics.log_partition import binary_states, enumerate_log_partition, importance, stratified_importance

DIM = 10


def quadratic(seed: int, scale: float = 0.4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    couplings = scale * torch.randn(DIM, DIM, generator=rng).triu(1)
    return couplings + couplings.T, scale * torch.randn(DIM, generator=rng)


J, H = quadratic(0)


def log_f(x: Tensor) -> Tensor:
    return ((x @ J) * x).sum(1) / 2 + x @ H


def by_hand() -> float:
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=DIM)), dtype=torch.float64)
    values = torch.einsum("bi,ij,bj->b", states, J.double(), states) / 2 + states @ H.double()
    return float(torch.logsumexp(values, 0))


@pytest.mark.parametrize("block_size", [1, 7, 8, 64, 100_000])
def test_binary_states_are_all_states_in_counting_order(block_size: int) -> None:
    blocks = list(binary_states(5, block_size=block_size))
    assert all(len(b) <= block_size for b in blocks)
    expected = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)))
    assert torch.equal(torch.cat(blocks), expected)


def test_enumeration_matches_product_models_and_a_plain_sum() -> None:
    weights = torch.linspace(-1, 2, 14)
    free = enumerate_log_partition(lambda x: x @ weights, 14, block_size=512)
    assert free.value == pytest.approx(float(torch.nn.functional.softplus(weights.double()).sum()), abs=1e-6)
    assert enumerate_log_partition(log_f, DIM, block_size=64).value == pytest.approx(by_hand(), abs=1e-6)
    assert free.kind == "exact"


def test_enumeration_survives_huge_values_and_empty_blocks() -> None:
    shifted = enumerate_log_partition(lambda x: log_f(x) + 5000, DIM, block_size=32)
    assert shifted.value == pytest.approx(5000 + by_hand(), abs=2e-3)  # float32 energies near 5000
    half = enumerate_log_partition(lambda x: torch.where(x[:, 0] > 0, 0.0, -math.inf), 6, block_size=4)
    assert half.value == pytest.approx(5 * math.log(2))


@pytest.mark.parametrize("num_draws", [1, 3])
def test_stratified_importance_is_right_and_better_than_plain(num_draws: int) -> None:
    rng = torch.Generator().manual_seed(1)
    estimate = stratified_importance(log_f, DIM, bits=[9, 0, 4, 2, 7], num_draws=num_draws, rng=rng)
    assert estimate.stderr is not None
    assert abs(estimate.value - by_hand()) < 3 * estimate.stderr
    assert estimate.n == 32 * num_draws
    # Bits of falling weight, like the leading bits of a number: the strata take most of the variance away.
    weights = 2.0 ** -torch.arange(DIM)
    sharp = stratified_importance(lambda x: 4 * x @ weights, DIM, bits=range(5), num_draws=num_draws, rng=rng)
    x = torch.randint(0, 2, (32 * num_draws, DIM), generator=rng).float()
    plain = importance(4 * x @ weights, torch.full((len(x),), -DIM * math.log(2)))
    assert sharp.stderr is not None and plain.stderr is not None and sharp.stderr < plain.stderr / 3
    assert sharp.value == pytest.approx(float(torch.nn.functional.softplus(4 * weights).sum()), abs=3 * sharp.stderr)


def test_all_bits_stratified_is_enumeration() -> None:
    rng = torch.Generator().manual_seed(2)
    estimate = stratified_importance(log_f, DIM, bits=list(range(DIM)), num_draws=2, rng=rng, block_size=100)
    assert estimate.value == pytest.approx(by_hand(), abs=1e-6)
    assert estimate.stderr == pytest.approx(0, abs=1e-8)


def test_the_number_of_blocks_does_not_matter() -> None:
    values = [
        stratified_importance(
            lambda x: x[:, :4] @ H[:4], DIM, bits=[0, 1, 2, 3], rng=torch.Generator().manual_seed(3), block_size=size
        )
        for size in (1, 2, 4, 4096)
    ]
    for estimate in values:  # the strata determine f: no error in the value; pairs of strata differ, so stderr > 0
        assert estimate.value == pytest.approx(values[0].value, abs=1e-9)
        assert estimate.stderr == pytest.approx(values[0].stderr, rel=1e-6)


@pytest.mark.parametrize(("num_draws", "most"), [(1, 1.0), (4, 0.98)])
def test_stratified_standard_error_covers(num_draws: int, most: float) -> None:
    rng = torch.Generator().manual_seed(4)
    truth, inside = by_hand(), 0
    for _ in range(300):
        e = stratified_importance(log_f, DIM, bits=[0, 1, 2, 3, 4, 5], num_draws=num_draws, rng=rng)
        assert e.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= most  # pairs of strata are conservative


def test_pairs_of_strata_are_not_conservative_where_the_last_bit_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(9)
    weights = torch.linspace(0.2, 0.8, DIM)
    weights[5] = 0
    truth = float(torch.nn.functional.softplus(weights).sum())
    inside = 0
    for _ in range(300):
        e = stratified_importance(lambda x: x @ weights, DIM, bits=[0, 1, 2, 3, 4, 6, 5], rng=rng)
        assert e.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= 0.98


def test_plain_importance_covers_and_moves() -> None:
    rng = torch.Generator().manual_seed(5)
    truth, inside, inside_wrong = by_hand(), 0, 0
    probs = torch.sigmoid(H + J.sum(1) / 4).clamp(0.2, 0.8)
    for _ in range(300):
        x = (torch.rand(800, DIM, generator=rng) < probs).float()
        log_q = (x * probs.log() + (1 - x) * (1 - probs).log()).sum(1)
        e = importance(log_f(x), log_q)
        wrong = importance(log_f(x) + x[:, 0], log_q)
        assert e.stderr is not None and wrong.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
        inside_wrong += abs(wrong.value - truth) < 1.96 * wrong.stderr
    assert 0.91 <= inside / 300 <= 0.98
    assert inside_wrong == 0


def test_kind_follows_the_bias() -> None:
    rng = torch.Generator().manual_seed(6)
    log_q = torch.full((400,), -DIM * math.log(2))
    x = torch.randint(0, 2, (400, DIM), generator=rng).float()
    assert importance(log_f(x), log_q).kind in ("consistent", "lower_bound")
    assert importance(0.1 * log_f(x), log_q).kind == "consistent"
    rough = importance(20 * log_f(x), log_q)
    assert rough.kind == "lower_bound" and rough.optimistic("lower")


def test_a_function_without_mass_at_the_draws_gives_minus_infinity() -> None:
    rng = torch.Generator().manual_seed(7)
    nothing = stratified_importance(lambda x: torch.full((len(x),), -math.inf), 4, bits=[0], rng=rng)
    assert nothing.value == -math.inf and nothing.kind == "lower_bound" and nothing.stderr is None


def test_bad_input_is_refused() -> None:
    rng = torch.Generator().manual_seed(8)
    with pytest.raises(ValueError, match="bits"):
        stratified_importance(log_f, DIM, bits=[1, 1], rng=rng)
    with pytest.raises(ValueError, match="bits"):
        stratified_importance(log_f, DIM, bits=[DIM], rng=rng)
    with pytest.raises(ValueError, match="NaN"):
        enumerate_log_partition(lambda x: x[:, 0] * math.nan, 4)
    with pytest.raises(ValueError, match="shape"):
        enumerate_log_partition(lambda x: x, 4)
    with pytest.raises(ValueError, match="1 to 30"):
        enumerate_log_partition(log_f, 31)
    with pytest.raises(ValueError, match="log_q"):
        importance(torch.zeros(3), torch.tensor([0.0, 0.0, -math.inf]))
