"""Annealing of a harmonium beside a plain loop and beside its matrix products alone (select with -m benchmark).

The three are measured in turn within one process, on one thread (OMP_NUM_THREADS=1); the time is the process's own.
`extra_info` has the plain loop's time over ours, and ours over that of the two matrix products of each step, below
which no such step can go.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from gmbench.metrics.harmonium import ais_harmonium, log_density
from gmbench.metrics.log_weights import log_mean_exp
from gmbench.model import Harmonium


def plain(machine: Harmonium, base: Tensor, num_chains: int, num_steps: int, rng: Generator) -> Tensor:
    """Log weights (num_chains,): every step builds its machines, asks both for log f, and draws by torch.bernoulli."""
    W, b, c = machine
    a = torch.logit(base)

    def at(beta: float) -> Harmonium:
        return Harmonium(beta * W, (1 - beta) * a + beta * b, beta * c)

    v = torch.bernoulli(base.expand(num_chains, -1), generator=rng)
    log_w = torch.full((num_chains,), float(torch.nn.functional.softplus(a).sum()) + len(c) * math.log(2))
    for k in range(1, num_steps + 1):
        new, old = at(k / num_steps), at((k - 1) / num_steps)
        log_w = log_w + log_density(new, v) - log_density(old, v)
        h = torch.bernoulli(torch.sigmoid(v @ new.weight + new.hidden_bias), generator=rng)
        v = torch.bernoulli(torch.sigmoid(h @ new.weight.T + new.visible_bias), generator=rng)
    return log_w


def products(machine: Harmonium, base: Tensor, num_chains: int, num_steps: int, rng: Generator) -> Tensor:
    """The two matrix products of each step and nothing else."""
    W = machine.weight
    v = torch.bernoulli(base.expand(num_chains, -1), generator=rng)
    h = torch.bernoulli(torch.full((num_chains, W.shape[1]), 0.5), generator=rng)
    for _ in range(num_steps):
        field, back = v @ W, h @ W.T
    return (field.sum() + back.sum())[None]


def ours(machine: Harmonium, base: Tensor, num_chains: int, num_steps: int, rng: Generator) -> Tensor:
    return ais_harmonium(machine, base, num_chains=num_chains, num_steps=num_steps, rng=rng).log_weights


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("num_visible", "num_hidden", "num_chains"), [(784, 500, 100), (784, 500, 500), (64, 100, 100)]
)
def test_ais_step(benchmark: Any, num_visible: int, num_hidden: int, num_chains: int) -> None:
    rng, num_steps = torch.Generator().manual_seed(0), 20
    machine = Harmonium(
        0.02 * torch.randn(num_visible, num_hidden, generator=rng),
        torch.randn(num_visible, generator=rng),
        torch.randn(num_hidden, generator=rng),
    )
    base = machine.visible_bias.sigmoid().clamp(0.05, 0.95)
    spent: dict[str, list[float]] = {"plain": [], "products": [], "ours": []}
    found: dict[str, Tensor] = {}

    def timed(run: Callable[..., Tensor]) -> None:
        begin = time.process_time()
        found[run.__name__] = run(machine, base, num_chains, num_steps, rng)
        spent[run.__name__].append(time.process_time() - begin)

    def turn() -> None:
        for run in (plain, products, ours):
            timed(run)

    benchmark.pedantic(turn, rounds=7, warmup_rounds=1)
    turns = list(zip(*(spent[name][1:] for name in ("plain", "products", "ours")), strict=True))
    benchmark.extra_info.update(
        num_visible=num_visible,
        num_hidden=num_hidden,
        num_chains=num_chains,
        ms_a_step=1e3 * statistics.median(one for _, _, one in turns) / num_steps,
        plain_over_ours=statistics.median(theirs / one for theirs, _, one in turns),
        ours_over_products=statistics.median(one / floor for _, floor, one in turns),
    )
    of_plain, of_ours = log_mean_exp(found["plain"]), log_mean_exp(found["ours"])
    assert abs(of_plain.value - of_ours.value) < 5 * (of_plain.stderr + of_ours.stderr)
