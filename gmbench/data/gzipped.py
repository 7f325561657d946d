"""Files that may be compressed with gzip: whether they are is read from their content, since names are changed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from gmbench.errors import UserError

MAGIC = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed where it is a gzip file.

    Raises:
        UserError: It cannot be read, or it is a truncated or damaged gzip file.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(MAGIC) else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
