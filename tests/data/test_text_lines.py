"""Reader of text lines: what ends a line, what is refused, and that a refusal costs no memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from gmbench.data.text_lines import read_lines
from gmbench.errors import UserError

TEXT = " a b \n\nÄ \u2028 ß\x85\x0c=\r\n東京\tz"
LINES = [" a b ", "", "Ä \u2028 ß\x85\x0c=", "東京\tz"]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_lines_end_where_they_end_and_nowhere_else(tmp_path: Path, compressed: bool, end: str) -> None:
    content = (TEXT + end).encode()
    path = written(tmp_path / "some.txt", gzip.compress(content) if compressed else content)
    assert read_lines(path) == LINES


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_lines(written(tmp_path / "bom.txt", b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n")) == ["a", "\ufeffb"]


@pytest.mark.parametrize("limit", [18, 20, 21, 22])
def test_a_byte_order_mark_is_no_part_of_the_longest_line(tmp_path: Path, limit: int) -> None:
    path = written(tmp_path / "bom.txt", b"\xef\xbb\xbf" + b"a" * 21 + b"\r\nbc\n")
    if limit >= 21:
        assert read_lines(path, max_line_bytes=limit) == ["a" * 21, "bc"]
    else:
        with pytest.raises(UserError, match="line 1 is longer"):
            read_lines(path, max_line_bytes=limit)


def test_several_gzip_members_are_one_text(tmp_path: Path) -> None:
    assert read_lines(written(tmp_path / "two.gz", gzip.compress(b"a\nb") + gzip.compress(b"c\n"))) == ["a", "bc"]


PACKED = gzip.compress(b"some words\n" * 500, mtime=0)
FAULTS = {
    "empty": (b"", "no text in it"),
    "empty, packed": (gzip.compress(b""), "no text in it"),
    "blank": (b" \n\t\r\n\n", "no text in it"),
    "latin-1": ("eins\nzwölf\ndrei\n".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xf6 at place 3\)"),
    "utf-16": ("eins\nzwei\n".encode("utf-16"), r"line 1 is not UTF-8 \(byte 0xf[ef] at place 1\)"),
    "cut in a character": ("a\nbä".encode()[:-1], r"line 2 is not UTF-8 \(byte 0xc3 at place 2\)"),
    "surrogate": (b"a\n\xed\xa0\x80\n", "line 2 is not UTF-8"),
    "truncated": (PACKED[:-20], "truncated or damaged gzip file"),
    "flipped": (PACKED[:-8] + bytes([PACKED[-8] ^ 255]) + PACKED[-7:], "truncated or damaged gzip file"),
    "only magic": (b"\x1f\x8b", "truncated or damaged gzip file"),
    "other method": (b"\x1f\x8b\x07" + PACKED[3:], "truncated or damaged gzip file"),
    "garbled": (PACKED[:12] + bytes([255] * 20) + PACKED[32:], "truncated or damaged gzip file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_said_in_one_line(tmp_path: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    path = written(tmp_path / "some.txt", content)
    with pytest.raises(UserError, match=message) as caught:
        read_lines(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        read_lines(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_lines(tmp_path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_limits_are_exact(tmp_path: Path, end: bytes) -> None:
    fits = written(tmp_path / "fits.txt", b"ok\n" + b"x" * 20 + end)
    assert read_lines(fits, max_line_bytes=20) == ["ok", "x" * 20]
    over = written(tmp_path / "over.txt", b"ok\n" + b"x" * 21 + end)
    with pytest.raises(UserError, match="line 2 is longer than 20 bytes"):
        read_lines(over, max_line_bytes=20)
    with pytest.raises(UserError, match="longer than 22 bytes: give a part"):
        read_lines(fits, max_bytes=22)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_line_of_100_megabytes_is_refused_before_it_is_read(tmp_path: Path, compressed: bool) -> None:
    size = 100_000_000
    path = tmp_path / "long.txt"
    if compressed:  # a hundred members of a megabyte each unpack to one line
        path.write_bytes(gzip.compress(b"x" * 1_000_000) * 100)
    else:
        with path.open("wb") as file:
            file.truncate(size)  # NULs, which are UTF-8
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="line 1 is longer than 10,000,000 bytes: break it into lines"):
            read_lines(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 35_000_000  # the limit, a few times over, and not what the file holds
