"""The idx format of the MNIST files: a magic number with type and number of dimensions, the sizes, then the values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gmbench.data.gzipped import read_bytes
from gmbench.errors import UserError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path, *, num_dims: int) -> NDArray[np.generic]:
    """The array of an idx file, plain or compressed with gzip.

    Arguments:
        path: The file.
        num_dims: How many dimensions the array must have: 3 for images, 1 for labels.

    Returns:
        The array in the file's own type (official MNIST: uint8) and native byte order, read-only.

    Raises:
        UserError: It is no idx file, has another number of dimensions, or has too few or too many bytes.

    References:
        The MNIST database of handwritten digits, Y. LeCun, C. Cortes, C. J. C. Burges, 1998 (section on file formats).
    """
    content = read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise UserError(f"{path}: no idx file: it begins with {content[:4].hex(' ') or 'nothing'}")
    if content[3] != num_dims:
        raise UserError(f"{path}: an idx array of {content[3]} dimensions where {num_dims} are expected")
    begin = 4 + 4 * num_dims
    if len(content) < begin:
        raise UserError(f"{path}: truncated idx file: {len(content)} bytes, and its header alone takes {begin}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dims, offset=4))
    dtype = np.dtype(DTYPES[content[2]])
    if len(content) != (expected := begin + dtype.itemsize * math.prod(shape)):
        fault = "truncated idx file" if len(content) < expected else "trailing bytes in an idx file"
        raise UserError(f"{path}: {fault}: {len(content)} bytes where {expected} are expected for shape {shape}")
    found: NDArray[np.generic] = np.frombuffer(content, dtype, offset=begin).reshape(shape)
    return found.astype(dtype.newbyteorder("="), copy=False)
