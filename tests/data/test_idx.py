"""Reader of idx files against arrays written byte by byte, and every fault that a file can have."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from gmbench.data.gzipped import read_bytes
from gmbench.data.idx import read_idx
from gmbench.errors import UserError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray, code: int | None = None) -> bytes:
    code = CODES[array.dtype.str[1:]] if code is None else code
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack("BBBB", 0, 0, code, array.ndim) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_official_layout_spelled_out(tmp_path: Path) -> None:
    labels = written(tmp_path / "labels", bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    assert read_idx(labels, num_dims=1).tolist() == [5, 0, 4]
    images = written(tmp_path / "images", bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    assert read_idx(images, num_dims=3).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("dtype", CODES)
def test_every_type_in_native_byte_order(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(12).reshape(3, 4) * 10 - 5 * (dtype != "u1")).astype(dtype)
    found = read_idx(written(tmp_path / "array", idx(array)), num_dims=2)
    assert found.dtype == array.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("name", ["images.gz", "images"])
def test_compression_is_seen_in_the_content(tmp_path: Path, name: str) -> None:
    for content in (idx(IMAGES), gzip.compress(idx(IMAGES))):
        np.testing.assert_array_equal(read_idx(written(tmp_path / name, content), num_dims=3), IMAGES)


WHOLE = idx(IMAGES)
FAULTS = {
    "truncated": (WHOLE[:-1], "truncated idx file: 39 bytes where 40 are expected"),
    "no values": (WHOLE[:16], "truncated idx file: 16 bytes where 40"),
    "half a header": (WHOLE[:10], "truncated idx file: 10 bytes, and its header alone takes 16"),
    "trailing": (WHOLE + b"\0", "trailing bytes in an idx file: 41 bytes where 40"),
    "empty": (b"", "no idx file: it begins with nothing"),
    "text": (b"<html>not found</html>", "no idx file: it begins with 3c 68 74 6d"),
    "unknown type": (idx(IMAGES, code=0x0A), "no idx file: it begins with 00 00 0a 03"),
    "other dimensions": (idx(IMAGES[0]), "an idx array of 2 dimensions where 3 are expected"),
    "sizes that no file has": (WHOLE[:4] + b"\xff" * 12 + WHOLE[16:], "truncated idx file"),
    "truncated gzip": (gzip.compress(WHOLE)[:-9], "truncated or damaged gzip file"),
    "damaged gzip": (gzip.compress(WHOLE)[:-6] + b"\0" * 6, "truncated or damaged gzip file"),
    "header of a gzip alone": (gzip.compress(WHOLE)[:5], "truncated or damaged gzip file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file_in_one_line(tmp_path: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    path = written(tmp_path / "some-idx3-ubyte", content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path, num_dims=3)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.gz", tmp_path):
        with pytest.raises(UserError, match=r": cannot be read \(.+\)"):
            read_bytes(path)
