"""The points from which a reference row takes its counts: a fixed training set, or so many fresh draws."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Generator, Tensor

from gmbench.model import Data

ROWS = 100_000  # rows in memory at a time


def training_points(data: Data, num_draws: int, *, rng: Generator) -> Iterator[Tensor]:
    """Blocks (n, D): the rows of a fixed training set, or `num_draws` fresh draws where data are unlimited."""
    if data.train is not None:
        yield from data.train.split(ROWS)
        return
    for begin in range(0, num_draws, ROWS):
        yield data.draw(min(ROWS, num_draws - begin), rng)
