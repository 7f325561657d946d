"""NLL and excess nats: closed forms of product models, pairing, bounds, infinities, coverage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gmbench.estimate import Kind
from gmbench.metrics.likelihood import excess_nats, excess_nats_per_point, nll

P = torch.linspace(0.1, 0.6, 10)
Q = torch.linspace(0.3, 0.4, 10)


def draw(p: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return (torch.rand(n, len(p), generator=rng) < p).float()


def log_prob(x: Tensor, p: Tensor) -> Tensor:
    return (x * p.log() + (1 - x) * (1 - p).log()).sum(1)


def entropy(p: Tensor) -> float:
    return -float((p * p.log() + (1 - p) * (1 - p).log()).sum())


def divergence(p: Tensor, q: Tensor) -> float:
    return float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum())


def test_nll_of_the_truth_is_its_entropy() -> None:
    x = draw(P, 20_000, torch.Generator().manual_seed(0))
    estimate = nll(log_prob(x, P), "exact")
    assert estimate.stderr is not None and estimate.stderr < 0.02
    assert abs(estimate.value - entropy(P)) < 3 * estimate.stderr
    assert estimate.kind == "unbiased"  # a mean over test points


def test_excess_is_the_divergence_and_pairing_shrinks_its_error() -> None:
    x = draw(P, 20_000, torch.Generator().manual_seed(1))
    true, model = log_prob(x, P), log_prob(x, Q)
    estimate = excess_nats(model, true, "exact")
    assert estimate.stderr is not None
    assert abs(estimate.value - divergence(P, Q)) < 3 * estimate.stderr
    assert estimate.value > 20 * estimate.stderr  # separates a wrong model from the truth
    near = excess_nats(log_prob(x, P + 0.01), true, "exact")
    unpaired = nll(log_prob(x, P + 0.01), "exact").stderr
    assert near.stderr is not None and unpaired is not None and near.stderr < unpaired / 10
    assert excess_nats(true, true, "exact").value == 0


def test_per_point_values_average_to_the_estimate() -> None:
    x = draw(P, 100, torch.Generator().manual_seed(2))
    true, model = log_prob(x, P), log_prob(x, Q)
    values = excess_nats_per_point(model, true)
    assert values.shape == (100,)
    assert float(values.mean()) == pytest.approx(excess_nats(model, true, "exact").value)


@pytest.mark.parametrize(
    ("given", "turned", "flatters"),
    [
        ("lower_bound", "upper_bound", False),
        ("upper_bound", "lower_bound", True),
        ("consistent", "consistent", False),
        ("unbiased", "unbiased", False),
    ],
)
def test_bounds_change_sides(given: Kind, turned: Kind, flatters: bool) -> None:
    values = torch.tensor([-1.0, -2.0])
    for estimate in (nll(values, given), excess_nats(values, torch.zeros(2), given)):
        assert estimate.kind == turned
        assert estimate.optimistic("lower") is flatters


def test_probability_zero_gives_infinity_with_a_note() -> None:
    values = torch.tensor([-1.0, -math.inf])
    for estimate in (nll(values, "exact"), excess_nats(values, torch.zeros(2), "exact")):
        assert estimate.value == math.inf
        assert estimate.stderr is None and "1 of 2" in estimate.note


def test_shared_log_z_error_is_added_in_quadrature() -> None:
    values = torch.tensor([-1.0, -2.0, -3.0])
    alone, shared = nll(values, "consistent"), nll(values, "consistent", log_z_stderr=0.5)
    assert alone.stderr is not None and shared.stderr == pytest.approx(math.hypot(alone.stderr, 0.5))
    assert "log Z" in shared.note and not alone.note


def test_standard_errors_cover() -> None:
    rng = torch.Generator().manual_seed(3)
    truth, gap, inside, inside_gap = entropy(P), divergence(P, Q), 0, 0
    for _ in range(400):
        x = draw(P, 200, rng)
        e, d = nll(log_prob(x, P), "exact"), excess_nats(log_prob(x, Q), log_prob(x, P), "exact")
        assert e.stderr is not None and d.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
        inside_gap += abs(d.value - gap) < 1.96 * d.stderr
    assert 0.91 <= inside / 400 <= 0.98
    assert 0.91 <= inside_gap / 400 <= 0.98


def test_a_noisy_shared_log_z_is_covered_only_with_its_error() -> None:
    rng = torch.Generator().manual_seed(4)
    truth, with_error, without = entropy(P), 0, 0
    for _ in range(300):
        noise = 0.3 * float(torch.randn((), generator=rng))
        values = log_prob(draw(P, 200, rng), P) - noise
        e, bare = nll(values, "consistent", log_z_stderr=0.3), nll(values, "consistent")
        assert e.stderr is not None and bare.stderr is not None
        with_error += abs(e.value - truth) < 1.96 * e.stderr
        without += abs(bare.value - truth) < 1.96 * bare.stderr
    assert 0.91 <= with_error / 300 <= 0.98
    assert without / 300 < 0.8


def test_one_point_has_no_standard_error() -> None:
    estimate = nll(torch.tensor([-2.0]), "exact")
    assert estimate.value == 2 and estimate.stderr is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        nll(torch.tensor([math.nan, 0.0]), "exact")
    with pytest.raises(ValueError, match=r"\+inf"):
        nll(torch.tensor([math.inf, 0.0]), "exact")
    with pytest.raises(ValueError, match="empty"):
        nll(torch.zeros(0), "exact")
    with pytest.raises(ValueError, match="shape"):
        excess_nats(torch.zeros(3), torch.zeros(2), "exact")
    with pytest.raises(ValueError, match="finite"):
        excess_nats(torch.zeros(1), torch.tensor([-math.inf]), "exact")
    with pytest.raises(ValueError, match="log_z_stderr"):
        nll(torch.zeros(2), "exact", log_z_stderr=-1.0)
