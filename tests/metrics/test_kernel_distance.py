"""The kernel distance: a double loop, torchmetrics on the same full sets, a closed form, and that it moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmbench.metrics.kernel_distance import cubic, kernel_distance


def features(num: int, rng: torch.Generator, *, dim: int = 8, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(num, dim, generator=rng, dtype=torch.float64) + shift


def double_loop(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_agrees_with_a_double_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = features(23, rng, shift=0.2), features(31, rng)
    assert kernel_distance(x, y).value == pytest.approx(double_loop(x.numpy(), y.numpy()), rel=1e-10)


def test_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    rng = torch.Generator().manual_seed(1)
    x, y = features(300, rng, shift=0.2), features(300, rng)
    assert kernel_distance(x, y).value == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)
    assert torch.allclose(cubic(x, y), kid.poly_kernel(x, y), rtol=1e-12)


def test_blocks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(2)
    x, y = features(70, rng, shift=0.1), features(90, rng)
    whole = kernel_distance(x, y)
    monkeypatch.setattr("gmbench.metrics.mmd2._BLOCK", 16)
    assert kernel_distance(x, y).value == pytest.approx(whole.value, rel=1e-10)


def test_float32_features_lose_nothing() -> None:
    rng = torch.Generator().manual_seed(3)
    x, y = features(300, rng).float() * 30, features(300, rng).float() * 30
    assert kernel_distance(x, y).value == kernel_distance(x.double(), y.double()).value


def test_unbiased_with_an_error_that_covers() -> None:
    """One feature, uniform on [-1, 1] against the same shifted by s: E x = s, E x² = s² + 1/3, E x³ = s³ + s."""
    rng = torch.Generator().manual_seed(4)
    s = 0.5
    truth = 3 * s**2 + 3 * s**4 + (s**3 + s) ** 2  # the squared gaps of the moments, weighted as (xy + 1)³ weighs them

    def uniform(shift: float) -> torch.Tensor:
        return 2 * torch.rand(200, 1, generator=rng, dtype=torch.float64) - 1 + shift

    found = [kernel_distance(uniform(s), uniform(0)) for _ in range(200)]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([one.stderr for one in found])
    assert abs(float(values.mean()) - truth) < 3 * float(values.std()) / 200**0.5
    assert 0.91 <= float(((values - truth).abs() < 1.96 * errors).float().mean()) <= 0.98
    null = torch.tensor([kernel_distance(features(100, rng), features(100, rng)).value for _ in range(100)])
    assert abs(float(null.mean())) < 3 * float(null.std()) / 10 and float(null.min()) < 0


def test_separates_wrong_samples_from_right_ones() -> None:
    rng = torch.Generator().manual_seed(5)
    real = features(500, rng)
    right = kernel_distance(features(500, rng), real)
    for wrong in (features(500, rng, shift=0.3), features(500, rng) * 1.4, features(500, rng)[:1].expand(500, -1)):
        assert kernel_distance(wrong, real).value > 10 * abs(right.value)


def test_refuses_features_that_overflow() -> None:
    with pytest.raises(ValueError, match="standardise"):
        kernel_distance(torch.full((3, 2), 1e60, dtype=torch.float64), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="same features"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(3, 4))
