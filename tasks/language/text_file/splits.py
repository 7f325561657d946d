"""Which lines of a text are fitted, chosen by and measured: two of every ten lines are held out, or the last fifth."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from itertools import accumulate
from pathlib import Path

from gmbench.data.text_lines import read_lines
from gmbench.errors import UserError

from ..corpora.parts import Part, Parts
from .default_text import default_text

MAX_BYTES = 100_000_000  # unpacked; 27 million words of that size were made ids in 16 CPU-seconds and 2.4 GiB
MIN_SENTENCES = 20  # two of them validation, two test: of one sentence there is no standard error
MIN_WORDS = 640  # so that a tenth has a window of 64
TEN = 10


def by_tens(path: Path | None = None) -> Parts:
    """Of every ten lines that are not blank one for validation and one for test, chosen by a hash of the ten's number.

    Of the last lines, fewer than ten, those are held out that would be if there were ten.

    Raises:
        UserError: There are fewer than 20 such lines.
    """
    lines, source = _read(path)
    lines = [line for line in lines if line.strip()]
    if len(lines) < MIN_SENTENCES:
        raise UserError(
            f"{source}: {len(lines)} lines that are not blank, where {MIN_SENTENCES} sentences are expected: put each "
            "on a line of its own, or read the text as one with --variant context=stream"
        )
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for begin in range(0, len(lines), TEN):
        validation, test = _held_out(begin // TEN)
        for place, line in enumerate(lines[begin : begin + TEN]):
            parts[1 if place == validation else 2 if place == test else 0].append(line)
    return _named(source, *parts)


def _held_out(ten: int) -> tuple[int, int]:
    """Two different places, 0 … 9."""
    first, second, *_ = hashlib.sha256(f"text_file/{ten}".encode()).digest()
    return first % TEN, (first % TEN + 1 + second % (TEN - 1)) % TEN


def in_order(path: Path | None = None) -> Parts:
    """The first eight tenths of the words, the next tenth and the last; blank lines between two parts are in none.

    A line in which one part ends and the next begins is cut there, and has an end in both.

    Raises:
        UserError: There are fewer than 640 words.
    """
    lines, source = _read(path)
    ends = list(accumulate(len(line.split()) for line in lines))
    if (num := ends[-1]) < MIN_WORDS:
        raise UserError(f"{source}: {num} words between blanks, where {MIN_WORDS} are expected: give a longer text")
    borders = (0, num * 8 // TEN, num * 9 // TEN, num)
    return _named(source, *(_words(lines, ends, *borders[part : part + 2]) for part in range(3)))


def _words(lines: list[str], ends: list[int], first: int, stop: int) -> list[str]:
    """The lines from word number `first` up to `stop`, not included; `ends` counts the words up to each line's end."""
    begin, last = bisect_right(ends, first), bisect_left(ends, stop)
    found = lines[begin : last + 1]
    if surplus := ends[last] - stop:
        found[-1] = " ".join(found[-1].split()[:-surplus])
    if before := first - (ends[begin - 1] if begin else 0):
        found[0] = " ".join(found[0].split()[before:])
    return found


def _read(path: Path | None) -> tuple[list[str], str]:
    if path is None:
        return default_text(), "the default text"
    return read_lines(path, max_bytes=MAX_BYTES), str(path)


def _named(source: str, train: list[str], validation: list[str], test: list[str]) -> Parts:
    return Parts(*(
        Part(lines, f"{source}, its {name} part")
        for name, lines in (("training", train), ("validation", validation), ("test", test))
    ))  # fmt: skip
