"""Whether code touched a random generator that is not its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gmbench.conformance.checks import require


@contextmanager
def untouched_global_randomness(what: str) -> Iterator[None]:
    """Fails when the block drew from, or seeded, the global generator of torch, numpy or `random`."""
    before = _states()
    yield
    for name, state in _states().items():
        require(state == before[name], f"{what} used the global generator of {name}; draw from the given rng")


def _states() -> dict[str, object]:
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (it is what is guarded)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (legacy["key"].tobytes(), legacy["pos"]),
        "random": random.getstate(),
    }
