"""Arithmetic in the weights' own type inside training in mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda")


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, or in a function that it decorates, nothing is cast to half precision, on CPUs or on GPUs.

    Training steps run under autocast where a run's precision is mixed. What they compute to choose weights is what
    measuring computes later, without autocast: rounding to bfloat16 would bias it, and the weights that autocast keeps
    of a step's forward pass are those before the update. Where no autocast is on, nothing is done.
    """
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
