"""Squared maximum mean discrepancy of two samples: unbiased, with its standard error and its permutation null.

Source: A Kernel Two-Sample Test, Gretton, Borgwardt, Rasch, Schölkopf, Smola, JMLR 13, 2012 (arXiv 0805.2368).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_binary, check_count, check_finite, check_shape

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(N, D), (M, D) -> (N, M); may be called on blocks of rows."""

# Rows of the Gram matrix at once: 256 x 4000 float32 = 4 MB stay in cache for the sums; 1024 rows took 1.5 times as
# long.
_BLOCK = 256


def exp_hamming(bandwidth: float) -> Kernel:
    """k(x, y) = exp(-bandwidth · Hamming(x, y)) on bits; `bandwidth` > 0 multiplies, it does not divide."""
    _check_bandwidth(bandwidth)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        check_binary("x", x)
        check_binary("y", y)
        # Hamming = D/2 - 2 (x - 1/2)·(y - 1/2): one matrix product, exact in float32 and in TF32.
        offset = x.new_tensor(-0.5 * bandwidth * x.shape[1])
        return torch.addmm(offset, x - 0.5, (y - 0.5).T, alpha=2 * bandwidth).exp_()

    return kernel


def rbf(bandwidth: float) -> Kernel:
    """k(x, y) = exp(-‖x - y‖² / (2 bandwidth²)); `bandwidth` > 0 is a length in the unit of the points."""
    _check_bandwidth(bandwidth)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        # Distances do not see the shift; it keeps ‖x‖² + ‖y‖² - 2 x·y from cancelling far from the origin.
        center = y.mean(0)
        x, y = x - center, y - center
        half = 0.5 / bandwidth**2
        gram = torch.addmm(-half * (y * y).sum(1), x, y.T, alpha=2 * half)
        return gram.sub_(half * (x * x).sum(1, keepdim=True)).clamp_(max=0).exp_()

    return kernel


def linear() -> Kernel:
    """k(x, y) = x·y, for which MMD² = ‖E x - E y‖²: it sees nothing but the means."""
    return lambda x, y: x @ y.T


@torch.no_grad()
def mmd2(x: Tensor, y: Tensor, kernel: Kernel) -> Estimate:
    """The unbiased U-statistic of MMD², which may be negative.

    Its standard error is the first-order one, 4 Var[a]/N + 4 Var[b]/M with a(x) = E k(x, x') - E k(x, y) and
    b(y) = E k(y, y') - E k(x, y). It holds away from MMD = 0. At 0 the statistic is degenerate: this standard error is
    then about √2 too wide and the distribution is not normal, so that `permutation_null` is the right comparison.

    Arguments:
        x: Draws of the model, (N, D), N at least 2.
        y: Draws of the data, (M, D), M at least 2.
        kernel: A positive definite kernel.
    """
    x, y = _as_samples(x, y)
    xx, yy = _within_rows(x, kernel), _within_rows(y, kernel)  # (N,), (M,)
    xy = x.new_zeros(len(x), dtype=torch.float64)
    yx = x.new_zeros(len(y), dtype=torch.float64)
    for start in range(0, len(x), _BLOCK):
        gram = kernel(x[start : start + _BLOCK], y)
        xy[start : start + _BLOCK] = gram.sum(1, dtype=torch.float64)
        yx += gram.sum(0, dtype=torch.float64)
    a = xx / (len(x) - 1) - xy / len(y)  # (N,)
    b = yy / (len(y) - 1) - yx / len(x)  # (M,)
    variance = 4 * a.var() / len(a) + 4 * b.var() / len(b)
    return Estimate(
        value=float(a.mean() + b.mean()),
        stderr=float(variance.sqrt()),
        n=min(len(x), len(y)),
        kind="unbiased",
        note="first-order stderr: near 0 compare with the permutation null",
    )


def mmd2_groups(xs: Sequence[Tensor] | Tensor, ys: Sequence[Tensor] | Tensor, kernel: Kernel) -> Estimate:
    """The mean of MMD² over G independent pairs of groups; its standard error is their spread, valid at MMD = 0 too.

    Arguments:
        xs: G groups of model draws, each (N, D).
        ys: G groups of data draws, each (M, D), all distinct: one group used again would make the pairs dependent.
        kernel: A positive definite kernel.
    """
    if len(xs) != len(ys):
        raise ValueError(f"as many groups of model draws as of data draws are needed, not {len(xs)} and {len(ys)}")
    check_count("the number of groups", len(xs), least=2)
    for name, groups in (("model", xs), ("data", ys)):
        if len({group.data_ptr() for group in groups}) < len(groups):
            raise ValueError(f"the {name} groups must be distinct draws, but one tensor is used more than once")
    values = torch.tensor([mmd2(x, y, kernel).value for x, y in zip(xs, ys, strict=True)], dtype=torch.float64)
    return Estimate(
        value=float(values.mean()), stderr=float(values.std()) / math.sqrt(len(values)), n=len(values), kind="unbiased"
    )


class PermutationNull(NamedTuple):
    """What MMD² looks like when both samples come from one distribution."""

    sd: float
    p_value: float


@torch.no_grad()
def permutation_null(
    x: Tensor, y: Tensor, kernel: Kernel, *, num_permutations: int, rng: torch.Generator
) -> PermutationNull:
    """Standard deviation and p-value of `mmd2` under random relabelling of the pooled sample.

    One pass over the pooled Gram matrix K serves all permutations: with the columns of S marking who is called x,
    only diag(SᵀKS) depends on the labels.

    Arguments:
        x: Draws of the model, (N, D), N at least 2.
        y: Draws of the data, (M, D), M at least 2.
        kernel: A positive definite kernel.
        num_permutations: P; the least possible p-value is 1 / (P + 1).
        rng: Draws the permutations.
    """
    check_count("num_permutations", num_permutations, least=2)
    x, y = _as_samples(x, y)
    n, m = len(x), len(y)
    total = n + m
    pooled = torch.cat([x, y])
    order = torch.rand(num_permutations, total, generator=rng, device=rng.device).argsort(1).to(x.device)
    labels = x.new_zeros(total, num_permutations + 1)  # (N + M, P + 1); the first column is the true labelling
    labels[:n, 0] = 1
    labels[:, 1:].scatter_(0, order[:, :n].T, 1.0)
    share = n / total
    centered = labels - share  # small products keep the float32 matrix product accurate

    f64 = torch.float64
    quadratic = x.new_zeros(num_permutations + 1, dtype=f64)  # zᵀKz with z the centred labels
    row_sums = x.new_zeros(total, dtype=f64)
    diagonal = x.new_zeros(total, dtype=f64)
    for start in range(0, total, _BLOCK):
        rows = slice(start, start + _BLOCK)
        gram = kernel(pooled[rows], pooled)
        quadratic += ((gram @ centered) * centered[rows]).sum(0, dtype=f64)
        row_sums[rows] = gram.sum(1, dtype=f64)
        diagonal[rows] = gram.diagonal(start)
    s = labels.to(f64)
    s_rows = s.T @ row_sums
    s_diagonal = s.T @ diagonal
    xx = quadratic + 2 * share * (s_rows - share * row_sums.sum()) + share**2 * row_sums.sum()
    xy = s_rows - xx
    yy = row_sums.sum() - 2 * s_rows + xx
    values = (xx - s_diagonal) / (n * (n - 1)) + (yy - diagonal.sum() + s_diagonal) / (m * (m - 1)) - 2 * xy / (n * m)
    null, observed = values[1:], values[0]
    exceeding = int((null >= observed).sum())
    return PermutationNull(sd=float(null.std()), p_value=(1 + exceeding) / (1 + num_permutations))


def _within_rows(x: Tensor, kernel: Kernel) -> Tensor:
    """Row sums of the Gram matrix of one sample without its diagonal, (N,), from its upper triangle."""
    sums = x.new_zeros(len(x), dtype=torch.float64)
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        gram = kernel(x[start:stop], x[start:])  # (B, N - start)
        gram.diagonal().zero_()
        sums[start:stop] += gram.sum(1, dtype=torch.float64)
        sums[stop:] += gram[:, stop - start :].sum(0, dtype=torch.float64)
    return sums


def _as_samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, points in (("x", x), ("y", y)):
        check_shape(name, points, ("N", "D"))
        check_count(f"the number of points in {name}", len(points), least=2)
        check_finite(name, points)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have points of one dimension, not {x.shape[1]} and {y.shape[1]}")
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return x.to(dtype), y.to(dtype)


def _check_bandwidth(bandwidth: float) -> None:
    if not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth must be positive and finite, not {bandwidth}")
