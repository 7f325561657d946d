"""Nats per unit of text (token, word, byte) and perplexity, from one negative log-likelihood of each sentence.

The NLL of the corpus over its number of units is a ratio of two sums over sentences of random lengths. exp(m) s / √n
of the tokens ignores their lengths, and that tokens of a sentence depend on each other; here a sentence is one draw.

Sources: W. G. Cochran, "Sampling Techniques", 1977, chapter 6 (the ratio estimator); H. R. Künsch, "The Jackknife and
the Bootstrap for General Stationary Observations", 1989 (blocks of a stream).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate, Kind
from gmbench.metrics.checks import check_count, check_finite, check_log_values, check_shape

MIN_BLOCKS = 10
_KIND_OF_NEGATIVE: dict[Kind, Kind] = {
    "exact": "consistent",
    "unbiased": "consistent",
    "consistent": "consistent",
    "lower_bound": "upper_bound",
    "upper_bound": "lower_bound",
}


def nats_per_unit(nats: Tensor, units: Tensor, kind: Kind = "exact") -> Estimate:
    """Σ nats / Σ units over N sentences, with the standard error of a ratio: sentences are draws, units are not.

    Arguments:
        nats: Minus log p of each sentence, or its excess over the truth's, (N,); +inf where log p is -inf.
        units: What each sentence counts in the denominator (tokens with or without its end, words, bytes), (N,), > 0.
        kind: What the log p behind `nats` is: a lower bound gives an upper bound of the rate.

    Raises:
        ValueError: Shapes differ, a sentence has no units, or nats hold NaN.
    """
    num, turned = len(nats), _KIND_OF_NEGATIVE[kind]
    points = rate_per_point(nats, units)
    if not bool(torch.isfinite(points).all()):
        num_infinite = int(torch.isinf(nats).sum())
        note = f"{num_infinite} of {num} sentences have probability 0 under the model: infinite, no standard error"
        return Estimate(value=math.inf, n=num, kind=turned, note=note)
    if num == 1:
        return Estimate(value=float(points[0]), n=1, kind=turned, note="one sentence: no standard error")
    return Estimate(value=float(points.mean()), stderr=float(points.std()) / math.sqrt(num), n=num, kind=turned)


def rate_per_point(nats: Tensor, units: Tensor) -> Tensor:
    """Numbers (N,), float64, one a sentence, whose mean is Σ nats / Σ units and whose spread is that of the ratio.

    With r the ratio and u the mean units they are r + (nats_i - r units_i) / u. Those of two models on the same
    sentences may be subtracted: that is the paired comparison of their ratios. Arguments as for `nats_per_unit`.
    """
    check_shape("nats", nats, ("N",))
    check_shape("units", units, (len(nats),))
    check_log_values("minus nats", -nats)
    if not bool((units > 0).all()):
        raise ValueError(f"every sentence needs at least one unit; the least is {float(units.min()):g}")
    nats, units = nats.double(), units.double()
    rate = nats.sum() / units.sum()
    if bool(torch.isinf(rate)):
        return torch.full_like(nats, math.inf)
    return rate + (nats - rate * units) / units.mean()


def perplexity(rate: Estimate) -> Estimate:
    """exp of nats per unit, its standard error by the delta method; a bound stays the bound that it is."""
    value = math.exp(rate.value) if rate.value < 700 else math.inf
    if rate.stderr is None or math.isinf(value):
        note = rate.note or "infinite: no standard error"
        return Estimate(value=value, n=rate.n, kind=rate.kind, note=note)
    return Estimate(value=value, stderr=value * rate.stderr, n=rate.n, kind=rate.kind, note=rate.note)


def bits(rate: Estimate) -> Estimate:
    """The same rate in bits."""
    stderr = None if rate.stderr is None else rate.stderr / math.log(2)
    return rate.model_copy(update={"value": rate.value / math.log(2), "stderr": stderr})


def stream_rate(nats: Tensor, units: Tensor, *, block: int, kind: Kind = "exact") -> Estimate:
    """Σ nats / Σ units of a stream of L positions that depend on each other, with a block bootstrap's standard error.

    The variance is that of the moving-block bootstrap as its number of draws grows: of all overlapping blocks of
    `block` positions, with the linearised ratio, so nothing is drawn. Of fewer than ten blocks it would be far too
    small, and there is none.

    Arguments:
        nats: Minus log p of each position, (L,), in order.
        units: What each position counts in the denominator, (L,), at least 0 (bytes of a token, 1 for a word, 0 …).
        block: Positions of a block: longer than what positions remember of each other, far shorter than L.

    Raises:
        ValueError: There is no whole block, or nothing is counted.
    """
    check_shape("nats", nats, ("L",))
    check_shape("units", units, (len(nats),))
    check_finite("units", units)
    check_log_values("minus nats", -nats)
    check_count("block", block)
    num_blocks = len(nats) // block
    check_count("the number of whole blocks", num_blocks, least=1)
    nats, units, turned = nats.double(), units.double(), _KIND_OF_NEGATIVE[kind]
    if not float(units.sum()) > 0:
        raise ValueError("the stream has no units")
    rate = nats.sum() / units.sum()
    if bool(torch.isinf(rate)):
        num_infinite = int(torch.isinf(nats).sum())
        note = f"{num_infinite} of {len(nats)} positions have probability 0: infinite, no standard error"
        return Estimate(value=math.inf, n=num_blocks, kind=turned, note=note)
    note = f"{num_blocks} blocks of {block} of {len(nats)} positions"
    if num_blocks < MIN_BLOCKS:
        return Estimate(value=float(rate), n=num_blocks, kind=turned, note=f"{note}: too few for a standard error")
    residual = (nats - rate * units) / units.mean()
    sums = residual.cumsum(0)
    sums = torch.cat([sums.new_zeros(1), sums])
    blocks = sums[block:] - sums[:-block]  # (L - block + 1,)
    stderr = float(blocks.square().mean().sqrt()) / math.sqrt(block * len(nats))
    return Estimate(value=float(rate), stderr=stderr, n=num_blocks, kind=turned, note=note)
