"""Mutual information as matrix products beside the per-batch loop in which it is published (select with -m benchmark).

The two are measured in turn within one process, on one thread (OMP_NUM_THREADS=1); the time is the process's own.
`extra_info` has the loop's time over ours. The loop is that of the code of Optimus and of the lagging encoder's: rows
of 32 points at a time against all N posteriors, differences (32, N, Z) broadcast, here over one latent a point.
It finds the lower bound alone, where ours finds the upper one and both standard errors too.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from gmbench.metrics.diagonal_gaussian import DiagonalGaussian
from gmbench.metrics.mutual_information import mutual_information

BATCH = 32


def plain(mean: Tensor, std: Tensor, z: Tensor) -> float:
    """E_x log q(z | x) - log (1/N) Σ_j q(z | x_j) from latents z (N, Z) of the N posteriors, in nats."""
    (num, num_latents), total = z.shape, 0.0
    variance = std.square()
    constant = variance.log().sum(-1) + num_latents * math.log(2 * math.pi)  # (N,)
    for begin in range(0, num, BATCH):
        difference = z[begin : begin + BATCH, None] - mean  # (B, N, Z)
        log_q = -((difference**2 / variance).sum(-1) + constant) / 2  # (B, N)
        total += float((log_q.diagonal(begin) - torch.logsumexp(log_q, 1) + math.log(num)).sum())
    return total / num


@pytest.mark.benchmark
@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
def test_mutual_information(benchmark: Any, precision: torch.dtype) -> None:
    num, num_latents, seed = 5000, 32, 3
    rng = torch.Generator().manual_seed(0)
    std = 0.3 + 0.4 * torch.rand(num, num_latents, generator=rng)
    mean = torch.randn(num, num_latents, generator=rng) * (1 - 0.5**2) ** 0.5
    # ours draws its latents in float64; the loop gets the same ones
    z = DiagonalGaussian(mean.double(), std.double()).draw(1, torch.Generator().manual_seed(seed))[0][0]
    given = tuple(part.to(precision) for part in (mean, std, z))
    spent: dict[str, list[float]] = {"plain": [], "ours": []}
    found: dict[str, float] = {}

    def turn() -> None:
        begin = time.process_time()
        found["plain"] = plain(*given)
        spent["plain"].append(time.process_time() - begin)
        begin = time.process_time()
        posterior = Independent(Normal(mean, std), 1)
        found["ours"] = mutual_information(posterior, rng=torch.Generator().manual_seed(seed)).lower.value
        spent["ours"].append(time.process_time() - begin)

    benchmark.pedantic(turn, rounds=3, warmup_rounds=0)
    pairs = list(zip(spent["plain"], spent["ours"], strict=True))
    benchmark.extra_info.update(
        num=num,
        num_latents=num_latents,
        plain_seconds=statistics.median(theirs for theirs, _ in pairs),
        ours_seconds=statistics.median(own for _, own in pairs),
        plain_over_ours=statistics.median(theirs / own for theirs, own in pairs),
    )
    assert found["plain"] == pytest.approx(found["ours"], abs=1e-4)
