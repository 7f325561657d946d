"""Generation by the PixelCNN from caches beside a full pass for every pixel (select with -m benchmark).

Compare the two sides within one process, on one thread (OMP_NUM_THREADS=1): `extra_info` has images a second. The
naive side takes D passes where the cached side's arithmetic is that of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gmbench.baselines.autoregressive.pixelcnn.network import PixelNetwork
from gmbench.baselines.autoregressive.pixelcnn.sampling import generate


def cached(network: PixelNetwork, thresholds: Tensor) -> Tensor:
    return generate(network, thresholds.shape[1], lambda i, logits: (logits > thresholds[i]).float())


@torch.no_grad()
def naive(network: PixelNetwork, thresholds: Tensor) -> Tensor:
    """The same images, with all logits computed anew for each pixel."""
    x = torch.zeros(thresholds.T.shape)
    for i in range(x.shape[1]):
        x[:, i] = (network.logits(x)[:, i] > thresholds[i]).float()
    return x


@pytest.mark.benchmark
@pytest.mark.parametrize("side", [naive, cached])
@pytest.mark.parametrize(("shape", "naive_num", "cached_num"), [((8, 8), 8, 1024), ((28, 28), 2, 256)])
def test_sampling(
    benchmark: Any, side: Callable[..., Tensor], shape: tuple[int, int], naive_num: int, cached_num: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PixelNetwork(shape, 16, 7, first_kernel=11, kernel=3)
    num = cached_num if side is cached else naive_num
    u = torch.rand(shape[0] * shape[1], num, generator=torch.Generator().manual_seed(0))
    thresholds = torch.logit(u)
    x = benchmark.pedantic(side, (network, thresholds), rounds=1 if side is naive else 3, warmup_rounds=0)
    benchmark.extra_info["images_per_second"] = num / benchmark.stats.stats.min
    if shape == (8, 8):
        assert x[:8].equal((naive if side is cached else cached)(network, thresholds[:, :8]))
