"""The amat format of the binarized MNIST files: text with one point a line, its values apart by blanks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gmbench.data.gzipped import read_bytes
from gmbench.errors import UserError

BLOCK = 1 << 20  # bytes of text that are looked at together: they and what is derived from them fit a cache

_OTHER, _BLANK, _END, _BIT = range(4)
_KIND = np.full(256, _OTHER, np.uint8)  # of every byte
_KIND[list(b" \t\r")] = _BLANK
_KIND[ord("\n")] = _END
_KIND[list(b"01")] = _BIT


def read_amat(path: Path, *, width: int) -> NDArray[np.uint8]:
    """The bits (N, width) of a text file, plain or compressed with gzip.

    Time for 50 000 lines of 784 bits on one thread: about a second.

    Raises:
        UserError: There are no lines, a line has another number of values, or a value is neither 0 nor 1.

    References:
        The neural autoregressive distribution estimator, H. Larochelle and I. Murray, 2011 (the files of its authors).
    """
    text = read_bytes(path).rstrip()
    if not text:
        raise UserError(f"{path}: no lines of 0 and 1 in it")
    found: list[NDArray[np.uint8]] = []
    begin = num_lines = 0
    while begin < len(text):
        end = text.find(b"\n", begin + BLOCK)
        end = len(text) if end < 0 else end
        found.append(_parsed(np.frombuffer(text, np.uint8, end - begin, begin), width, path, num_lines))
        num_lines += len(found[-1])
        begin = end + 1
    return np.concatenate(found)


def _parsed(lines: NDArray[np.uint8], width: int, path: Path, num_before: int) -> NDArray[np.uint8]:
    """The bits of whole lines, given as bytes without the last line's end, after `num_before` others."""
    kind = _KIND[lines]
    is_bit = kind == _BIT
    bad = kind == _OTHER
    bad[1:] |= is_bit[1:] & is_bit[:-1]  # 10, 01 …
    if bad.any():
        line = num_before + 1 + int(np.count_nonzero(kind[: int(bad.argmax())] == _END))
        raise UserError(f"{path}: line {line} has a value other than 0 and 1")
    begins = np.concatenate([[0], np.flatnonzero(kind == _END) + 1])
    widths = np.add.reduceat(np.append(is_bit, False), begins, dtype=np.int64)  # an empty last line begins at the end
    if len(wrong := np.flatnonzero(widths != width)):
        first = int(wrong[0])
        raise UserError(f"{path}: line {num_before + first + 1} has {widths[first]} values where {width} are expected")
    bits: NDArray[np.uint8] = lines[is_bit].reshape(len(widths), width) - np.uint8(ord("0"))
    return bits
