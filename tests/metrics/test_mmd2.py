"""MMD²: closed forms, a naive double loop, its standard error, its permutation null, and what it can and cannot see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gmbench.metrics.mmd2 import Kernel, exp_hamming, linear, mmd2, mmd2_groups, permutation_null, rbf


def bernoulli(probs: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return (torch.rand(n, len(probs), generator=rng) < probs).float()


def expected_kernel(p: Tensor, q: Tensor, bandwidth: float) -> float:
    """E exp(-b Hamming) of product models: the product of 1 - (1 - e^-b) P(x_i != y_i)."""
    differ = p * (1 - q) + q * (1 - p)
    return float((1 - (1 - math.exp(-bandwidth)) * differ.double()).prod())


def exact_mmd2(p: Tensor, q: Tensor, bandwidth: float) -> float:
    return expected_kernel(p, p, bandwidth) + expected_kernel(q, q, bandwidth) - 2 * expected_kernel(p, q, bandwidth)


def naive_mmd2(x: Tensor, y: Tensor, kernel: Kernel) -> float:
    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum(float(kernel(a[i : i + 1], b[j : j + 1])) for i, j in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


P = torch.linspace(0.2, 0.8, 12)
Q = torch.linspace(0.8, 0.2, 12)


@pytest.mark.parametrize("kernel", [exp_hamming(0.3), rbf(1.5), linear()])
def test_matches_a_double_loop_with_unequal_sizes(kernel: Kernel) -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = bernoulli(P, 13, rng), bernoulli(Q, 19, rng)
    assert mmd2(x, y, kernel).value == pytest.approx(naive_mmd2(x, y, kernel), abs=1e-6)


def test_blocks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(1)
    x, y = bernoulli(P, 101, rng), bernoulli(Q, 77, rng)
    whole = mmd2(x, y, exp_hamming(0.1))
    null = permutation_null(x, y, exp_hamming(0.1), num_permutations=50, rng=torch.Generator().manual_seed(2))
    monkeypatch.setattr("gmbench.metrics.mmd2._BLOCK", 16)
    blocks = mmd2(x, y, exp_hamming(0.1))
    assert blocks.value == pytest.approx(whole.value, abs=1e-9)
    assert blocks.stderr == pytest.approx(whole.stderr, rel=1e-6)
    again = permutation_null(x, y, exp_hamming(0.1), num_permutations=50, rng=torch.Generator().manual_seed(2))
    assert again.sd == pytest.approx(null.sd, rel=1e-4)


def test_kernels_are_their_formulas() -> None:
    rng = torch.Generator().manual_seed(3)
    x, y = bernoulli(P, 6, rng), bernoulli(Q, 9, rng)
    hamming = (x[:, None] != y[None]).sum(-1).double()
    assert torch.allclose(exp_hamming(0.1)(x, y).double(), (-0.1 * hamming).exp(), atol=1e-6)
    far = torch.randn(5, 2, generator=rng) + 1000
    assert torch.allclose(
        rbf(0.5)(far, far).double(), (-(torch.cdist(far.double(), far.double()) ** 2) / 0.5).exp(), atol=1e-3
    )
    assert torch.allclose(linear()(x, y), x @ y.T)


def test_rbf_matches_scikit_learn() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    rng = torch.Generator().manual_seed(4)
    x, y = torch.randn(20, 3, generator=rng), torch.randn(30, 3, generator=rng)
    reference = pairwise.rbf_kernel(x.numpy(), y.numpy(), gamma=1 / (2 * 0.7**2))
    assert torch.allclose(rbf(0.7)(x, y), torch.from_numpy(reference), atol=1e-5)


def test_matches_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    rng = torch.Generator().manual_seed(13)
    x, y = bernoulli(P, 50, rng), bernoulli(Q, 50, rng)
    k = exp_hamming(0.2)
    reference = float(kid.maximum_mean_discrepancy(k(x, x), k(x, y), k(y, y)))
    assert mmd2(x, y, k).value == pytest.approx(reference, abs=1e-6)


def test_matches_the_closed_form_of_product_models() -> None:
    rng = torch.Generator().manual_seed(5)
    estimate = mmd2(bernoulli(P, 4000, rng), bernoulli(Q, 4000, rng), exp_hamming(0.1))
    truth = exact_mmd2(P, Q, 0.1)
    assert estimate.stderr is not None
    assert estimate.stderr < 0.05 * truth  # the comparison below is a sharp one
    assert abs(estimate.value - truth) < 3 * estimate.stderr


def test_linear_kernel_is_the_squared_distance_of_the_means_and_blind_to_the_rest() -> None:
    rng = torch.Generator().manual_seed(6)
    estimate = mmd2(bernoulli(P, 4000, rng), bernoulli(Q, 4000, rng), linear())
    assert estimate.stderr is not None
    assert abs(estimate.value - float((P - Q).square().sum())) < 3 * estimate.stderr
    copied = bernoulli(torch.full((1,), 0.5), 1500, rng).expand(-1, 12).contiguous()  # all bits equal
    independent = bernoulli(torch.full((12,), 0.5), 1500, rng)
    blind = permutation_null(copied, independent, linear(), num_permutations=100, rng=rng)
    sees = permutation_null(copied, independent, exp_hamming(0.1), num_permutations=100, rng=rng)
    assert blind.p_value > 0.02
    assert sees.p_value == pytest.approx(1 / 101)
    assert mmd2(copied, independent, exp_hamming(0.1)).value > 20 * sees.sd


def test_standard_error_covers_away_from_the_null() -> None:
    rng = torch.Generator().manual_seed(7)
    truth = exact_mmd2(P, Q, 0.2)
    inside = 0
    for _ in range(300):
        e = mmd2(bernoulli(P, 150, rng), bernoulli(Q, 220, rng), exp_hamming(0.2))
        assert e.stderr is not None
        inside += abs(e.value - truth) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= 0.98


def test_unbiased_under_the_null_and_permutation_sd_is_the_true_sd() -> None:
    rng = torch.Generator().manual_seed(8)
    estimates = [mmd2(bernoulli(P, 100, rng), bernoulli(P, 140, rng), exp_hamming(0.2)) for _ in range(300)]
    values = torch.tensor([e.value for e in estimates])
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(300)
    null = permutation_null(
        bernoulli(P, 100, rng), bernoulli(P, 140, rng), exp_hamming(0.2), num_permutations=400, rng=rng
    )
    assert null.sd == pytest.approx(float(values.std()), rel=0.2)
    # The first-order standard error is about √2 too wide here, as documented.
    first_order = torch.tensor([e.stderr for e in estimates]).square().mean().sqrt()
    assert float(first_order) / float(values.std()) == pytest.approx(math.sqrt(2), rel=0.2)


def test_p_values_are_uniform_under_the_null() -> None:
    rng = torch.Generator().manual_seed(9)
    p_values = torch.tensor(
        [
            permutation_null(
                bernoulli(P, 40, rng), bernoulli(P, 60, rng), exp_hamming(0.2), num_permutations=99, rng=rng
            ).p_value
            for _ in range(200)
        ]
    )
    assert float((p_values <= 0.05).float().mean()) < 0.11
    assert float(p_values.mean()) == pytest.approx(0.5, abs=0.08)


def test_permutation_null_recomputes_mmd2_of_the_relabelled_sample() -> None:
    rng = torch.Generator().manual_seed(10)
    x, y = bernoulli(P, 9, rng), bernoulli(Q, 14, rng)
    pooled = torch.cat([x, y])
    order = torch.rand(30, 23, generator=torch.Generator().manual_seed(11)).argsort(1)
    direct = torch.tensor([mmd2(pooled[o[:9]], pooled[o[9:]], exp_hamming(0.3)).value for o in order])
    null = permutation_null(x, y, exp_hamming(0.3), num_permutations=30, rng=torch.Generator().manual_seed(11))
    assert null.sd == pytest.approx(float(direct.std()), rel=1e-4)
    observed = mmd2(x, y, exp_hamming(0.3)).value
    assert null.p_value == pytest.approx((1 + int((direct >= observed).sum())) / 31)


def test_group_standard_error_covers_at_the_null() -> None:
    rng = torch.Generator().manual_seed(12)
    inside = 0
    for _ in range(200):
        xs = [bernoulli(P, 40, rng) for _ in range(10)]
        ys = [bernoulli(P, 40, rng) for _ in range(10)]
        e = mmd2_groups(xs, ys, exp_hamming(0.2))
        assert e.stderr is not None and e.n == 10
        inside += abs(e.value) < 2.262 * e.stderr  # Student's t with 9 degrees of freedom
    assert 0.91 <= inside / 200 <= 0.98


def test_bad_input_is_refused() -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="0 and 1"):
        mmd2(2 * x - 1, x, exp_hamming(0.1))
    with pytest.raises(ValueError, match="one dimension"):
        mmd2(x, torch.zeros(4, 2), rbf(1.0))
    with pytest.raises(ValueError, match="at least 2"):
        mmd2(x[:1], x, rbf(1.0))
    with pytest.raises(ValueError, match="finite"):
        mmd2(x * math.nan, x, rbf(1.0))
    with pytest.raises(ValueError, match="bandwidth"):
        exp_hamming(0.0)
    with pytest.raises(ValueError, match="distinct"):
        mmd2_groups([x.clone(), x.clone()], [x, x], rbf(1.0))
