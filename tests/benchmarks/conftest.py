"""What benchmarks of training share: a model's fit beside the plainest torch loop of the same network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from gmbench.model import Data, Model
from gmbench.training import Trainer

SideBySide = Callable[..., None]


@pytest.fixture
def side_by_side(benchmark: Any) -> SideBySide:
    """Measures a plain loop and the harness in turn within one process, from the same weights.

    A machine's speed drifts, so each pair gives a ratio, each goes first half of the time, and the time is the
    process's own; run with OMP_NUM_THREADS=1. `extra_info` has `speed_ratio`, the plain loop's time over the harness's.
    """

    def measure(model: Model, network: nn.Module, data: Data, plain_loop: Callable[[], object], num_steps: int) -> None:
        """`network`: the part of `model` whose weights both loops must have changed."""
        initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        spent: dict[str, list[float]] = {"plain": [], "harness": []}

        def timed(name: str, loop: Callable[[], object]) -> None:
            model.load_state_dict(initial)
            before = [parameter.detach().clone() for parameter in network.parameters()]
            begin = time.process_time()
            loop()
            spent[name].append(time.process_time() - begin)
            pairs = zip(network.parameters(), before, strict=True)
            assert all(bool((now != then).any()) for now, then in pairs)

        def pair() -> None:
            loops = [("plain", plain_loop), ("harness", lambda: Trainer().fit(model, data))]
            first = len(spent["plain"]) % 2
            timed(*loops[first])
            timed(*loops[1 - first])

        benchmark.pedantic(pair, rounds=7, warmup_rounds=1)
        pairs = list(zip(spent["plain"][1:], spent["harness"][1:], strict=True))
        benchmark.extra_info.update(
            plain_ms_a_step=1e3 * statistics.median(plain for plain, _ in pairs) / num_steps,
            harness_ms_a_step=1e3 * statistics.median(ours for _, ours in pairs) / num_steps,
            speed_ratio=statistics.median(plain / ours for plain, ours in pairs),
        )

    return measure
