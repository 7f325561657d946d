"""Perplexity: its denominators, and standard errors that know of sentences and of streams."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.perplexity import bits, nats_per_unit, perplexity, rate_per_point, stream_rate


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sentences(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sentences of geometric lengths whose tokens share a difficulty: nats (N,) and tokens (N,)."""
    rng = generator(seed)
    lengths = torch.empty(num).geometric_(0.15, generator=rng)
    difficulty = 1 + torch.rand(num, generator=rng)
    return difficulty * lengths + 0.3 * lengths.sqrt() * torch.randn(num, generator=rng), lengths


def test_it_is_the_ratio_of_the_sums_and_not_the_mean_of_ratios() -> None:
    found = nats_per_unit(torch.tensor([2.0, 10.0]), torch.tensor([1, 4]))
    assert found.value == pytest.approx(12 / 5)
    assert perplexity(found).value == pytest.approx(math.exp(2.4))
    assert bits(found).value == pytest.approx(2.4 / math.log(2))


def test_uniform_tokens_have_the_vocabulary_as_perplexity() -> None:
    units = torch.tensor([3, 7, 12])
    found = perplexity(nats_per_unit(units.double() * math.log(50), units))
    assert found.value == pytest.approx(50) and found.stderr == pytest.approx(0, abs=1e-9)


def test_the_standard_error_covers_and_the_one_of_independent_tokens_does_not() -> None:
    truth = 1.5  # difficulty and length are independent
    inside, naive_inside, repeats = 0, 0, 400
    for seed in range(repeats):
        nats, units = sentences(200, seed)
        found = nats_per_unit(nats, units)
        assert found.stderr is not None
        inside += abs(found.value - truth) < 1.96 * found.stderr
        per_token = torch.repeat_interleave(nats / units, units.long())
        naive = float(per_token.std()) / math.sqrt(len(per_token))
        naive_inside += abs(found.value - truth) < 1.96 * naive
    assert 0.91 < inside / repeats < 0.985
    assert naive_inside / repeats < 0.6


def test_values_of_the_points_have_the_rate_as_mean_and_pair() -> None:
    nats, units = sentences(500, 1)
    other = nats + 0.02 * units
    points, better = rate_per_point(other, units), rate_per_point(nats, units)
    assert float(points.mean()) == pytest.approx(float(other.sum() / units.sum()))
    difference = points - better
    assert float(difference.mean()) == pytest.approx(0.02, abs=1e-6)
    # the gap is the same for every token, so the paired spread is nothing, whatever the lengths are
    assert float(difference.std()) < 1e-5 < float(better.std())


def test_a_bound_stays_a_bound_and_an_impossible_sentence_is_infinite() -> None:
    units = torch.tensor([3, 4])
    assert nats_per_unit(torch.tensor([3.0, 4.0]), units, "lower_bound").kind == "upper_bound"
    assert nats_per_unit(torch.tensor([3.0, 4.0]), units, "exact").kind == "consistent"
    found = nats_per_unit(torch.tensor([3.0, math.inf]), units)
    assert math.isinf(found.value) and found.stderr is None and "1 of 2" in found.note
    assert math.isinf(perplexity(found).value)
    assert math.isinf(perplexity(Estimate(value=800.0, stderr=1.0)).value)


@pytest.mark.parametrize(
    ("nats", "units", "message"),
    [
        (torch.ones(3), torch.ones(2), "shape"),
        (torch.ones(2), torch.tensor([1, 0]), "at least one unit"),
        (torch.tensor([1.0, math.nan]), torch.ones(2), "NaN"),
        (torch.empty(0), torch.empty(0), "empty"),
    ],
)
def test_bad_input_is_one_line(nats: Tensor, units: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        nats_per_unit(nats, units)
    assert "\n" not in str(error.value)


def autoregressive(length: int, seed: int) -> Tensor:
    """A stationary stream with correlation .8 between neighbours, mean 2, variance 1."""
    noise = torch.randn(length + 100, generator=generator(seed)) * math.sqrt(1 - 0.64)
    x, state = [], 0.0
    for one in noise.tolist():
        state = 0.8 * state + one
        x.append(state)
    return 2 + torch.tensor(x[100:])


def test_blocks_of_a_stream_cover_where_positions_depend_on_each_other() -> None:
    inside, naive_inside, repeats = 0, 0, 200
    for seed in range(repeats):
        nats = autoregressive(4000, seed)
        found = stream_rate(nats, torch.ones(4000), block=60)
        alone = stream_rate(nats, torch.ones(4000), block=1)
        assert found.stderr is not None and alone.stderr is not None
        inside += abs(found.value - 2) < 1.96 * found.stderr
        naive_inside += abs(found.value - 2) < 1.96 * alone.stderr
    assert 0.88 < inside / repeats < 0.985
    assert naive_inside / repeats < 0.65


def test_units_of_a_stream_may_be_bytes_and_some_positions_may_count_nothing() -> None:
    nats, units = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([2, 4, 6, 0])
    found = stream_rate(nats, units, block=2)
    assert found.value == pytest.approx(0.5) and (found.n, found.stderr) == (2, None)
    with pytest.raises(ValueError, match="no units"):
        stream_rate(nats, torch.zeros(4), block=2)
    with pytest.raises(ValueError, match="whole blocks"):
        stream_rate(nats, units, block=5)
    assert math.isinf(stream_rate(torch.tensor([1.0, math.inf]), torch.ones(2), block=1).value)
