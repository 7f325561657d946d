"""Precision, recall, density, coverage: brute force, torch-fidelity's pair, ties, errors, and that each one moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gmbench.metrics import neighbours as module
from gmbench.metrics.neighbours import neighbours


def brute_force(x: Tensor, y: Tensor, k: int) -> list[float]:
    """The four definitions, a point at a time, from differences."""

    def ball(points: Tensor, i: int) -> float:
        others = torch.cat([points[:i], points[i + 1 :]])
        return float((others - points[i]).square().sum(1).sqrt().sort().values[k - 1])

    real, generated = [ball(y, i) for i in range(len(y))], [ball(x, j) for j in range(len(x))]
    d = (x[:, None] - y[None]).square().sum(-1).sqrt()  # (N, M)
    precision = sum(any(d[j, i] <= real[i] for i in range(len(y))) for j in range(len(x))) / len(x)
    recall = sum(any(d[j, i] <= generated[j] for j in range(len(x))) for i in range(len(y))) / len(y)
    density = sum(float(d[j, i] <= real[i]) for i in range(len(y)) for j in range(len(x))) / (k * len(x))
    coverage = sum(any(d[j, i] <= real[i] for j in range(len(x))) for i in range(len(y))) / len(y)
    return [precision, recall, density, coverage]


def values(x: Tensor, y: Tensor, k: int) -> list[float]:
    return [one.value for one in neighbours(x, y, k=k)]


def classes(num: int, rng: torch.Generator, *, of: int = 10, noise: float = 0.0) -> Tensor:
    """Points of the first `of` of ten well separated clusters in 12 dimensions."""
    centres = 6 * torch.eye(12, dtype=torch.float64)[:10]
    points = centres[torch.randint(of, (num,), generator=rng)]
    return points + math.sqrt(1 + noise**2) * torch.randn(num, 12, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m", "dim", "k"), [(40, 55, 3, 1), (60, 35, 8, 3), (50, 50, 2, 5)])
def test_agrees_with_brute_force(n: int, m: int, dim: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(k)
    x = torch.randn(n, dim, generator=rng, dtype=torch.float64) * 1.3 + 100
    y = torch.randn(m, dim, generator=rng, dtype=torch.float64) + 100
    whole = neighbours(x, y, k=k)
    assert [one.value for one in whole] == pytest.approx(brute_force(x, y, k), abs=1e-12)
    monkeypatch.setattr(module, "_BLOCK", 16)
    blocks = neighbours(x, y, k=k)
    assert [one.value for one in blocks] == pytest.approx([one.value for one in whole], abs=1e-12)
    assert [one.stderr for one in blocks] == pytest.approx([one.stderr for one in whole], rel=1e-9)


def test_agrees_with_torch_fidelity() -> None:
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=rng) * 1.3, torch.randn(150, 6, generator=rng)
    found = prc.prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=64, verbose=False)
    assert values(x, y, 3)[:2] == pytest.approx([found[prc.KEY_METRIC_PRECISION], found[prc.KEY_METRIC_RECALL]])


def test_balls_are_closed_and_duplicates_are_found() -> None:
    """On bits most distances tie, and a ball around duplicates has no extent."""
    rng = torch.Generator().manual_seed(1)
    x, y = (torch.randint(2, (30, 4), generator=rng).double() for _ in range(2))
    assert values(x, y, 3) == pytest.approx(brute_force(x, y, 3), abs=1e-12)
    shifted = 0.1 * x + 1000.3, 0.1 * y + 1000.3
    assert values(*shifted, 3) == pytest.approx(brute_force(10 * shifted[0] // 1, 10 * shifted[1] // 1, 3), abs=1e-12)
    assert values(y, y, 2)[0] == values(y, y, 2)[1] == values(y, y, 2)[3] == 1


def test_each_moves_when_it_should() -> None:
    rng = torch.Generator().manual_seed(2)
    real = classes(600, rng)
    right = neighbours(classes(600, rng), real, k=5)
    half = neighbours(classes(600, rng, of=5), real, k=5)
    noisy = neighbours(classes(600, rng, noise=1.2), real, k=5)
    one = neighbours(real[:1].expand(600, -1), real, k=5)

    assert right.precision.value > 0.85 and right.recall.value > 0.85 and right.coverage.value > 0.9
    assert right.density.value == pytest.approx(1, abs=0.15)
    assert half.recall.value < 0.6 and half.coverage.value < 0.6 and half.precision.value > 0.85
    assert noisy.precision.value < 0.5 and noisy.density.value < 0.5 and noisy.recall.value > 0.9
    assert one.precision.value == 1 and one.recall.value < 0.01 and one.coverage.value < 0.05


@pytest.mark.parametrize("scale", [1.0, 1.2])
def test_errors_cover_what_is_expected_at_these_numbers(scale: float) -> None:
    rng = torch.Generator().manual_seed(3)
    mix = torch.randn(16, 16, generator=rng) / 4

    def draw(num: int, scale: float) -> Tensor:
        return (scale * torch.randn(num, 16, generator=rng) @ mix).clamp(min=0)

    found = [neighbours(draw(200, scale), draw(250, 1.0), k=5) for _ in range(100)]
    for position, name in enumerate(("precision", "recall", "density", "coverage")):
        scores = torch.tensor([one[position].value for one in found])
        errors = torch.tensor([one[position].stderr for one in found])
        ratio = float(errors.square().mean().sqrt() / scores.std())
        assert (0.75 if name == "density" else 1.0) < ratio < 2.3, name
        assert float(((scores - scores.mean()).abs() < 1.96 * errors).float().mean()) >= 0.88, name


def test_refuses_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="too few for a 5-th"):
        neighbours(torch.zeros(5, 2), torch.zeros(9, 2), k=5)
    with pytest.raises(ValueError, match="k must be at least 1"):
        neighbours(torch.zeros(5, 2), torch.zeros(9, 2), k=0)
    with pytest.raises(ValueError, match="same features"):
        neighbours(torch.zeros(5, 2), torch.zeros(9, 3), k=1)
