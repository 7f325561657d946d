"""Arrays of numbers in MATLAB files (version 4 to 7.2), by scipy's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmbench.errors import UserError, nearest


def read_mat(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The named arrays of a MATLAB file, each at least (rows, columns), as MATLAB has them.

    Raises:
        UserError: The file is missing or damaged, of version 7.3 (which is HDF5), lacks a name, or what bears the name
            is no dense array of numbers.
    """
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(str(path), variable_names=list(names), appendmat=False)
    except FileNotFoundError:
        raise UserError(f"{path}: cannot be read (no such file)") from None
    except NotImplementedError:
        raise UserError(f"{path}: a MATLAB file of version 7.3, which is HDF5: save it with -v7") from None
    except Exception as error:  # a damaged file makes the reader stumble anywhere: ValueError, zlib.error, KeyError …
        raise UserError(f"{path}: damaged, or no MATLAB file ({type(error).__name__})") from None
    for name in names:
        if name not in found:
            raise UserError(f"{path}: no array {name!r} in it: {nearest(name, _contained(path))}")
        array = found[name]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise UserError(f"{path}: {name!r} is no dense array of numbers")
    return {name: found[name] for name in names}


def _contained(path: Path) -> list[str]:
    from scipy.io import whosmat

    return [name for name, _, _ in whosmat(str(path), appendmat=False)]
