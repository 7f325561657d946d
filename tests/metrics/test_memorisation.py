"""The memorisation ratio: a direct count of differing bits, a memoriser's 0, fresh draws' 1, and its error."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from gmbench.metrics import memorisation
from gmbench.metrics.memorisation import nearest_by_hamming, nn_ratio

P = torch.linspace(0.1, 0.9, 60)


def draw(num: int, rng: torch.Generator, probs: Tensor = P) -> Tensor:
    return (torch.rand(num, len(probs), generator=rng) < probs).float()


def ratio(generated: Tensor, held_out: Tensor, train: Tensor) -> float:
    distances = [nearest_by_hamming(points, train).distance for points in (generated, held_out)]
    return nn_ratio(*distances, num_bootstraps=20, rng=torch.Generator().manual_seed(0)).value


def test_nearest_is_the_fewest_differing_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    x, train = draw(50, rng), draw(30, rng)
    monkeypatch.setattr(memorisation, "_BLOCK", 16)
    found = nearest_by_hamming(x, train)
    differing = (x[:, None] != train[None]).sum(-1)
    assert torch.equal(found.distance.long(), differing.min(1).values)
    assert torch.equal(differing.gather(1, found.index[:, None])[:, 0], differing.min(1).values)


def test_probabilities_have_the_expected_distance_of_their_draws() -> None:
    rng = torch.Generator().manual_seed(1)
    x = draw(3, rng)
    mean = torch.stack([(x != draw(20_000, rng)[:, None]).float().mean(0).sum(1)])
    assert torch.allclose(nearest_by_hamming(x, P[None]).distance, mean[0], atol=0.1)


def test_a_memoriser_has_0_fresh_draws_have_1_and_noise_has_more() -> None:
    rng = torch.Generator().manual_seed(2)
    train, test = draw(300, rng), draw(301, rng)
    assert ratio(train[torch.randint(300, (500,), generator=rng)], test, train) == 0
    assert ratio(draw(501, rng), test, train) == pytest.approx(1, abs=0.1)
    assert ratio(draw(500, rng, torch.full((60,), 0.5)), test, train) > 1.3
    half_copied = torch.where(torch.rand(500, 60, generator=rng) < 0.5, train[:1], draw(500, rng))
    assert 0 < ratio(half_copied, test, train) < 0.9


def test_medians_are_those_of_the_standard_library() -> None:
    rng = torch.Generator().manual_seed(3)
    a, b = torch.rand(10, generator=rng), torch.rand(7, generator=rng)
    found = nn_ratio(a, b, num_bootstraps=2, rng=rng).value
    assert found == pytest.approx(statistics.median(a.tolist()) / statistics.median(b.tolist()))


def test_error_covers() -> None:
    rng = torch.Generator().manual_seed(4)
    truth = 1.5  # of exponential distances, whose medians are log 2 times their means

    def exponential(num: int, mean: float) -> Tensor:
        return -mean * torch.rand(num, generator=rng).log()

    found = [
        nn_ratio(exponential(150, 1.5), exponential(200, 1.0), num_bootstraps=100, rng=rng) for _ in range(200)
    ]
    inside = sum(abs(one.value - truth) < 1.96 * (one.stderr or 0) for one in found) / 200
    assert 0.9 <= inside <= 0.99
    again = [nn_ratio(P, P, num_bootstraps=9, rng=torch.Generator().manual_seed(5)).stderr for _ in range(2)]
    assert again[0] == again[1]


def test_refuses_what_says_nothing() -> None:
    rng = torch.Generator().manual_seed(6)
    with pytest.raises(ValueError, match="most held-out points are training points"):
        nn_ratio(torch.ones(5), torch.tensor([0.0, 0.0, 3.0]), num_bootstraps=9, rng=rng)
    with pytest.raises(ValueError, match="only 0 and 1"):
        nearest_by_hamming(torch.full((2, 3), 0.5), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="probabilities between 0 and 1"):
        nearest_by_hamming(torch.zeros(2, 3), torch.full((4, 3), -1.0))
    with pytest.raises(ValueError, match="must have shape"):
        nearest_by_hamming(torch.zeros(2, 3), torch.zeros(4, 5))
