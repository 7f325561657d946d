"""Text files: their lines, in UTF-8 and nothing else, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from gmbench.data.gzipped import MAGIC
from gmbench.errors import UserError

MAX_LINE_BYTES = 10_000_000  # a file without line ends is no text of lines
MAX_BYTES = 1 << 30  # of all lines: a small compressed file can unpack to any size
_TOO_LONG = "{path}: longer than {max_bytes:,} bytes: give a part of it"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES, max_bytes: int = MAX_BYTES) -> list[str]:
    r"""The lines of a file, without their ends, blank ones included.

    A line ends at \n or \r\n; no other character ends one. A byte-order mark at the beginning is left out. Nothing is
    read beyond what is allowed: a line that is too long is refused when that much of it has been seen.

    Arguments:
        path: The file.
        max_line_bytes: The longest line, in bytes, its end apart.
        max_bytes: The longest text, in bytes, unpacked.

    Raises:
        UserError: It cannot be read, is a truncated or damaged gzip file, is not UTF-8, holds a NUL, is too long, has
            a line that is too long, or holds nothing but blanks.
    """
    lines: list[str] = []
    total = 0
    try:
        if path.is_file() and path.stat().st_size > max_bytes:
            raise UserError(_TOO_LONG.format(path=path, max_bytes=max_bytes))
        with _opened(path) as file:
            while line := file.readline(max_line_bytes + 2 + (0 if lines else len(_BYTE_ORDER_MARK))):
                total += len(line)
                if not lines:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if len(line) > max_line_bytes:
                    raise UserError(
                        f"{path}: line {len(lines) + 1} is longer than {max_line_bytes:,} bytes: break it into lines"
                    )
                if total > max_bytes:
                    raise UserError(_TOO_LONG.format(path=path, max_bytes=max_bytes))
                lines.append(_decoded(line, path, len(lines) + 1))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: no text in it")
    return lines


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(len(MAGIC)) == MAGIC
    return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(path))) if compressed else path.open("rb")


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        fault = f"byte 0x{line[error.start]:02x} at place {error.start + 1}"
        raise UserError(f"{path}: line {number} is not UTF-8 ({fault}): convert the file") from None
    if (place := line.find(b"\0")) >= 0:  # UTF-8, but no text: UTF-16 without its mark, or a binary file
        raise UserError(f"{path}: line {number} is no text (byte 0x00 at place {place + 1}): convert the file")
    return text
