"""Reader of text rows of bits against numpy's own text reader, and its faults."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gmbench.data import amat
from gmbench.data.amat import read_amat
from gmbench.errors import UserError

BITS = np.random.default_rng(0).integers(0, 2, size=(37, 11), dtype=np.uint8)


def text(bits: np.ndarray, blank: str = " ", end: str = "\n") -> bytes:
    return "".join(blank.join(map(str, row)) + end for row in bits).encode()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
@pytest.mark.parametrize("compressed", [False, True])
def test_agrees_with_loadtxt(tmp_path: Path, end: str, compressed: bool) -> None:
    content = text(BITS, end=end)
    path = written(tmp_path / "bits.amat", gzip.compress(content) if compressed else content)
    found = read_amat(path, width=11)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, BITS)
    np.testing.assert_array_equal(found, np.loadtxt(content.decode().splitlines(), dtype=np.uint8))


def test_other_blanks_and_no_last_line_end(tmp_path: Path) -> None:
    path = written(tmp_path / "bits", b"  1 0\t1\n0  0 1")
    assert read_amat(path, width=3).tolist() == [[1, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("block", [1, 21, 22, 23, 100, 10_000])
def test_blocks_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(amat, "BLOCK", block)
    np.testing.assert_array_equal(read_amat(written(tmp_path / "bits", text(BITS)), width=11), BITS)


LINES = text(BITS).splitlines(keepends=True)
FAULTS = {
    "short line": (b"".join([*LINES[:30], LINES[30][2:], *LINES[31:]]), "line 31 has 10 values where 11 are expected"),
    "long line": (b"".join([*LINES[:8], b"1 " + LINES[8], *LINES[9:]]), "line 9 has 12 values where 11 are expected"),
    "cut off": (text(BITS)[:-5], "line 37 has 9 values where 11 are expected"),
    "empty line": (b"".join([*LINES[:3], b"\n", *LINES[3:]]), "line 4 has 0 values where 11 are expected"),
    "a two": (b"".join([*LINES[:20], LINES[20].replace(b"1", b"2", 1), *LINES[21:]]), "line 21 has a value other than"),
    "a ten": (b"".join([*LINES[:20], b"10" + LINES[20][1:], *LINES[21:]]), "line 21 has a value other than 0 and 1"),
    "a fraction": (b"0.5 " * 11 + b"\n", "line 1 has a value other than 0 and 1"),
    "a minus": (b"-1 " * 11 + b"\n", "line 1 has a value other than 0 and 1"),
    "bytes": (bytes(range(14, 200)), "line 1 has a value other than 0 and 1"),
    "nothing": (b" \n\n", "no lines of 0 and 1 in it"),
    "truncated gzip": (gzip.compress(text(BITS))[:-20], "truncated or damaged gzip file"),
}


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file_and_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, block: int
) -> None:
    monkeypatch.setattr(amat, "BLOCK", block)
    content, message = FAULTS[fault]
    path = written(tmp_path / "bits.amat", content)
    with pytest.raises(UserError, match=message) as caught:
        read_amat(path, width=11)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_an_empty_line_where_a_block_ends_is_a_fault_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = text(BITS[:3]) + b"\n" + text(BITS[3:])
    monkeypatch.setattr(amat, "BLOCK", len(text(BITS[:3])))  # the block ends with the third line, or with the empty one
    with pytest.raises(UserError, match="line 4 has 0 values where 11 are expected"):
        read_amat(written(tmp_path / "a.amat", content), width=11)
