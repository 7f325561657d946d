"""Bits from grey levels: a pixel of mean m is ink with probability m."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gmbench.randomness import stream

VERSION = 1  # that of the task's card: held-out bits are fixed by it


def binarize(means: Tensor, rng: Generator) -> Tensor:
    """Independent bits with the given means, of the same shape and type; a mean of 0 or 1 is kept for certain.

    Arguments:
        means: Any shape, in [0, 1].
        rng: A generator on the device of `means`.
    """
    return (torch.rand(means.shape, generator=rng, device=means.device) < means).to(means.dtype)


def binarize_once(means: Tensor, *names: str) -> Tensor:
    """The one binarization of held-out images, the same in every run: names say which images they are."""
    return binarize(means, stream("dynamic_mnist", VERSION, *names))
