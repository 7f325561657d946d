"""Bits as Bernoulli variables given by their log odds: likelihoods, draws, and passes over many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from gmbench.samplers.noise import uniforms

ROWS = 512  # rows of one pass outside training: as fast as more, and of convolutions faster, since caches hold them


def log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """log P(x) in nats, (...), of bits x (..., D) under independent bits with these log odds (..., D).

    `x` may lack leading axes of `logits`, over which it is repeated.
    """
    return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def draw(logits: Tensor, rng: Generator) -> Tensor:
    """Independent bits with these log odds, of their shape."""
    return (uniforms(tuple(logits.shape), logits, rng) < logits.sigmoid()).to(logits.dtype)


def log_odds(batch: Tensor) -> Tensor:
    """Log odds of the means of the bits in `batch` (N, D), (D,), the means kept 1 % off 0 and 1."""
    return torch.logit(0.98 * batch.mean(0) + 0.01)


def normals(shape: tuple[int, ...], like: Tensor, rng: Generator) -> Tensor:
    """Independent draws from N(0, 1) of the given shape, with the dtype and on the device of `like`."""
    return torch.randn(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function` of x (N, ...), computed ROWS rows at a time and put together."""
    return torch.cat([function(rows) for rows in x.split(ROWS)])


def block_sizes(num: int) -> Iterator[int]:
    """`num` as a sum of block sizes of at most ROWS."""
    for begin in range(0, num, ROWS):
        yield min(ROWS, num - begin)
