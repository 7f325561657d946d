"""Which lines of which files are training, validation and test text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.data.text_lines import read_lines
from gmbench.errors import UserError


@dataclass(frozen=True)
class Part:
    """Lines of text, from which file, and their classes, int64 (N,), where they have some."""

    lines: list[str]
    source: str
    classes: Tensor | None = None

    def take(self, rows: Tensor) -> Part:
        """The lines with these numbers, in their order."""
        classes = None if self.classes is None else self.classes[rows]
        return replace(self, lines=[self.lines[row] for row in rows.tolist()], classes=classes)


class Parts(NamedTuple):
    """The text that a model is fitted to, that on which choices are made, and that on which it is measured."""

    train: Part
    validation: Part
    test: Part


Reader = Callable[..., Parts]
"""Parts from the paths of the card's files, in the card's order."""


def read_part(path: Path) -> Part:
    """All lines of a file."""
    return Part(read_lines(path), str(path))


def three_files(train: Path, validation: Path, test: Path) -> Parts:
    """Each part from its own file."""
    return Parts(read_part(train), read_part(validation), read_part(test))


def held_out(part: Part, num: int, name: str) -> tuple[Part, Part]:
    """A part without `num` of its lines, and these: chosen by hash, so on every machine the same."""
    if not num < len(part.lines):
        raise UserError(f"{part.source}: {len(part.lines)} lines, of which {num} cannot be held out")
    order = hashed_order(name, len(part.lines))
    return part.take(order[num:].sort().values), part.take(order[:num].sort().values)


def rated(part: Part, num_classes: int) -> Part:
    """Lines that begin with their class, a number: without it, the class apart.

    Raises:
        UserError: A line begins with something else.
    """
    known = {str(number): number for number in range(num_classes)}
    lines, classes = [], []
    for number, line in enumerate(part.lines, start=1):
        rating, _, text = line.strip().partition(" ")
        if rating not in known:
            raise UserError(
                f"{part.source}: line {number} begins with {rating[:20]!r} where a rating from 0 to "
                f"{num_classes - 1} is expected"
            )
        lines.append(text)
        classes.append(known[rating])
    return replace(part, lines=lines, classes=torch.tensor(classes))


def hashed_order(name: str, num: int) -> Tensor:
    """A random but fixed order of `num` things, (num,) int64: the same with every version of the libraries."""
    keys = [hashlib.sha256(f"{name}/{index}".encode()).digest() for index in range(num)]
    return torch.tensor(sorted(range(num), key=keys.__getitem__), dtype=torch.int64)
