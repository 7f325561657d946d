"""log Z of an unnormalised distribution on bit vectors: by enumeration or by (stratified) importance sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gmbench.estimate import Estimate, Kind
from gmbench.metrics.checks import check_count, check_log_values, check_shape
from gmbench.metrics.log_weights import log_mean_exp

LogDensity = Callable[[Tensor], Tensor]
"""Unnormalised log density, (B, D) -> (B,), nats."""

_LARGEST_BIAS = 0.01  # nats: below this the log of an unbiased estimate is called consistent, above it a lower bound


def binary_states(
    dim: int, *, block_size: int = 2048, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Iterator[Tensor]:
    """Yields all 2^dim bit vectors once, in counting order (bit 0 is the most significant), as blocks (B, dim).

    Arguments:
        dim: D, 1 to 62.
        block_size: Rows of a block at most; rounded down to a power of two.
        device: Where the blocks live.
        dtype: Of the blocks.
    """
    if not 1 <= dim <= 62:
        raise ValueError(f"dim must be 1 to 62, not {dim}")
    check_count("block_size", block_size)
    num_low = min(dim, block_size.bit_length() - 1)
    low = _bits(torch.arange(2**num_low, device=device), num_low).to(dtype)  # (B, num_low)
    for high in range(2 ** (dim - num_low)):
        block = torch.empty(len(low), dim, dtype=dtype, device=device)
        block[:, : dim - num_low] = _bits(torch.tensor([high], device=device), dim - num_low).to(dtype)
        block[:, dim - num_low :] = low
        yield block


@torch.no_grad()
def enumerate_log_partition(
    log_f: LogDensity, dim: int, *, block_size: int = 2048, device: torch.device | str = "cpu"
) -> Estimate:
    """log Z = log Σ_x f(x) over all 2^dim states, exact (up to the rounding of `log_f`).

    Arguments:
        log_f: Unnormalised log density, (B, D) -> (B,); -inf where f is 0.
        dim: D, at most 30: 2^24 states of a small network already take about a minute.
        block_size: States evaluated at once.
        device: Where `log_f` computes.
    """
    if not 1 <= dim <= 30:
        raise ValueError(f"enumeration needs dim from 1 to 30, not {dim}: use stratified_importance or ais")
    total = torch.tensor(-math.inf, dtype=torch.float64, device=device)
    for x in binary_states(dim, block_size=block_size, device=device):
        total = torch.logaddexp(total, torch.logsumexp(_evaluate(log_f, x), 0))
    return Estimate(value=float(total), n=2**dim, kind="exact")


def importance(log_f: Tensor, log_q: Tensor) -> Estimate:
    """log Z from N independent draws of a proposal q that covers f: log of the mean of f / q.

    The mean is unbiased, so its log lies below log Z on average, by about stderr² / 2: the kind is `consistent` while
    that is under 0.01 nats, else `lower_bound` (an NLL made with it is then optimistic).

    Arguments:
        log_f: Unnormalised log density at the draws, (N,), N at least 2.
        log_q: Normalised log density of the proposal at the draws, (N,), finite.
    """
    check_shape("log_f", log_f, ("N",))
    check_shape("log_q", log_q, tuple(log_f.shape))
    if not bool(torch.isfinite(log_q).all()):
        raise ValueError("log_q must be finite: a proposal cannot have drawn what it gives no mass")
    mean = log_mean_exp(log_f.to(torch.float64) - log_q.to(torch.float64))
    return _estimate(mean.value, mean.stderr, mean.n, mean.ess)


@torch.no_grad()
def stratified_importance(
    log_f: LogDensity,
    dim: int,
    *,
    bits: Sequence[int],
    rng: torch.Generator,
    num_draws: int = 1,
    block_size: int = 2048,
    device: torch.device | str = "cpu",
) -> Estimate:
    """log Z by uniform draws, `num_draws` in each of the 2^len(bits) strata that the values of chosen bits make.

    With one draw a stratum the variance comes from pairs of neighbouring strata (the collapsed-strata estimator), which
    is conservative; with more it is the one within strata, unbiased. The kind follows the bias as for `importance`.

    Arguments:
        log_f: Unnormalised log density, (B, D) -> (B,); -inf where f is 0.
        dim: D.
        bits: Distinct positions of the bits that define the strata, most telling first, at least one.
        rng: Draws the other bits.
        num_draws: Draws per stratum.
        block_size: States evaluated at once (rounded to whole strata, at least two).
        device: Where `log_f` computes.

    Source: Sampling Techniques, William G. Cochran, 3rd edition, 1977, chapters 5 and 5A.12 (collapsed strata).
    """
    if not bits or len(set(bits)) != len(bits) or not all(0 <= i < dim for i in bits):
        raise ValueError(f"bits must be distinct positions from 0 to {dim - 1}, at least one, not {list(bits)}")
    check_count("num_draws", num_draws)
    check_count("block_size", block_size)
    num_strata = 2 ** len(bits)
    strata_per_block = 2 ** max(1, (block_size // num_draws).bit_length() - 1)
    free = [i for i in range(dim) if i not in set(bits)]
    free_bits, strata_bits = (torch.tensor(b, device=device, dtype=torch.int64) for b in (free, list(bits)))

    log_sum = log_square = log_variance = torch.tensor(-math.inf, dtype=torch.float64, device=device)
    for start in range(0, num_strata, strata_per_block):
        stratum = torch.arange(start, min(start + strata_per_block, num_strata), device=device)
        index = stratum.repeat_interleave(num_draws)
        x = torch.empty(len(index), dim, device=device)
        x[:, strata_bits] = _bits(index, len(bits)).float()
        x[:, free_bits] = torch.empty(len(index), len(free), device=rng.device).random_(0, 2, generator=rng).to(device)
        log_w = _evaluate(log_f, x)
        log_sum = torch.logaddexp(log_sum, torch.logsumexp(log_w, 0))
        log_square = torch.logaddexp(log_square, torch.logsumexp(2 * log_w, 0))
        peak = log_w.max()
        if peak > -math.inf:
            w = (log_w - peak).exp().view(-1, num_draws)  # (strata, draws)
            if num_draws == 1:
                block_variance = (w[0::2] - w[1::2]).square().sum()
            else:
                block_variance = num_draws * w.var(1).sum()
            log_variance = torch.logaddexp(log_variance, 2 * peak + block_variance.log())
    # All three are sums over single draws; Z = 2^free / num_draws · Σ f, whose relative error needs no scale.
    total = num_strata * num_draws
    if log_sum == -math.inf:
        return _estimate(-math.inf, math.inf, total, 0.0)
    value = float(log_sum) + len(free) * math.log(2) - math.log(num_draws)
    stderr = math.exp(0.5 * float(log_variance) - float(log_sum))
    ess = math.exp(2 * float(log_sum) - float(log_square))
    return _estimate(value, stderr, total, ess)


def _estimate(value: float, stderr: float, n: int, ess: float) -> Estimate:
    if value == -math.inf:
        return Estimate(value=value, n=n, kind="lower_bound", note="no draw has positive mass: no standard error")
    bias = stderr**2 / 2
    kind: Kind = "consistent" if bias < _LARGEST_BIAS else "lower_bound"
    return Estimate(value=value, stderr=stderr, n=n, kind=kind, note=f"bias of the log -{bias:.2g} nats, ESS {ess:.4g}")


def _bits(index: Tensor, num_bits: int) -> Tensor:
    """Binary digits of the integers `index` (B,), most significant first, (B, num_bits) int64."""
    shifts = torch.arange(num_bits - 1, -1, -1, device=index.device)
    return index[:, None] >> shifts & 1


def _evaluate(log_f: LogDensity, x: Tensor) -> Tensor:
    values = log_f(x)
    check_shape("the result of log_f", values, (len(x),))
    check_log_values("the result of log_f", values)
    return values.to(torch.float64)
