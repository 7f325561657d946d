"""Where the images of a variant come from: files of the card's data, or scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gmbench.errors import UserError, nearest

from .binarization import binarize
from .digits import digits8, mnist, mnist_static
from .image_set import ImageSet
from .omniglot import omniglot_small
from .silhouettes import silhouettes

SOURCES: dict[str, tuple[Callable[..., ImageSet], tuple[str, ...]]] = {
    "digits8": (digits8, ()),
    "mnist": (
        mnist,
        tuple(f"mnist/{part}-ubyte.gz" for part in (
            "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"
        )),
    ),
    "mnist_static": (
        mnist_static, tuple(f"binarized_mnist/binarized_mnist_{part}.amat.gz" for part in ("train", "valid", "test"))
    ),
    "caltech": (silhouettes, ("caltech101_silhouettes/caltech101_silhouettes_28.mat",)),
    "omniglot_small": (omniglot_small, tuple(f"omniglot/images_background_small{part}.zip" for part in (1, 2))),
}  # fmt: skip


def load(name: str, files: Callable[[str], Path]) -> ImageSet:
    """The images of that name; only their files are asked for, and a set that was read is kept for this process.

    Arguments:
        name: One of `SOURCES`.
        files: Gives the local, verified path of a file from its path inside the data folder.

    Raises:
        UserError: There is no such set, or a file is missing or damaged.
    """
    if name not in SOURCES:
        raise UserError(f"no images {name!r}: {nearest(name, SOURCES)}")
    read, paths = SOURCES[name]
    return read(*(files(path) for path in paths))


__all__ = ("SOURCES", "ImageSet", "binarize", "load")
