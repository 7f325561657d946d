"""Grey images inside a zip file, decoded in memory: nothing is extracted, so no member's name reaches the disk."""

from __future__ import annotations

import fnmatch
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gmbench.errors import UserError

MAX_BYTES = 1 << 24  # of one member, unpacked: a small file can unpack to any size


def read_zip_images(path: Path, pattern: str) -> dict[str, NDArray[np.uint8]]:
    """The PNG files of a zip file whose names match a pattern such as `faces/*.png`; `*` also matches slashes.

    Returns:
        By name, in the order of the names: (H, W) grey levels from 0 (black) to 255; 1-bit images have these two only.

    Raises:
        UserError: The zip file or an image in it is damaged, an image is no grey PNG of at most 8 bits, two members
            share a name, or none matches.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if fnmatch.fnmatchcase(name, pattern))
            if not names:
                raise UserError(f"{path}: nothing in it matches {pattern!r}")
            if len(set(names)) < len(names):
                raise UserError(f"{path}: two members share a name")
            return {name: _decode(archive, name, path) for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: truncated or damaged zip file ({error})") from None
    except (RuntimeError, NotImplementedError) as error:  # a password, or an unusual compression
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    if archive.getinfo(name).file_size > MAX_BYTES:
        raise UserError(f"{path}: {name!r} unpacks to more than {MAX_BYTES} bytes")
    content = archive.read(name)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode not in ("1", "L"):
                raise UserError(f"{path}: {name!r} has the mode {image.mode} where a grey image is expected")
            return np.asarray(image.convert("L"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError):
        raise UserError(f"{path}: {name!r} is no PNG file, or a damaged one") from None
