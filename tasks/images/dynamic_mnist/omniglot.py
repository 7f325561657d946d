"""The two small background sets of Omniglot: handwritten characters of 8 alphabets, reduced to 28x28 grey pixels."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmbench.data.zip_images import read_zip_images
from gmbench.errors import UserError

from .binarization import binarize_once
from .image_set import ImageSet
from .splits import shuffled

SIDE, NUM_CHARACTERS, NUM_DRAWERS = 28, 242, 20
FIRST_OF_PART = (1, 15, 17, 21)  # drawers 1-14 train, 15 and 16 validation, 17-20 test
_NAME = re.compile(r"[^/]+/(?P<character>[^/]+/[^/]+)/\d+_(?P<drawer>\d\d)\.png")


@cache
def omniglot_small(*paths: Path) -> ImageSet:
    """4840 images of 242 characters, each drawn by 20 people, in an own split by drawer: 3388 / 484 / 968 images.

    Greek and Latin are in both files and counted once. All characters are in every part; no drawing hand of an alphabet
    is in two. A grey level is the share of ink in 3 or 4 by 3 or 4 pixels of the drawing; it is binarized dynamically
    for training, as in the paper on importance weighting, and once for validation and test. That paper's file (24 345 /
    8070 images of 50 alphabets) is another one: likelihoods are not comparable.

    Arguments:
        paths: The zip files, in any order.

    Raises:
        UserError: A file is damaged, or an image is missing.

    References:
        Human-level concept learning through probabilistic program induction, B. M. Lake, R. Salakhutdinov and
        J. B. Tenenbaum, 2015. Importance weighted autoencoders, Y. Burda, R. Grosse and R. Salakhutdinov, 2015,
        arXiv 1509.00519 (the use as binary images).
    """
    means, classes, drawers = drawings(*paths)
    images, labels = [], []
    for part, first, end in zip(("train", "validation", "test"), FIRST_OF_PART, FIRST_OF_PART[1:], strict=False):
        rows = ((drawers >= first) & (drawers < end)).nonzero()[:, 0]
        rows = rows[shuffled(f"omniglot_small/{part}", len(rows))]
        images.append(means[rows] if part == "train" else binarize_once(means[rows], "omniglot_small", part))
        labels.append(classes[rows])
    return ImageSet(*images, (SIDE, SIDE), True, *labels, num_classes=NUM_CHARACTERS)


def drawings(*paths: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Grey images (4840, 784), characters (4840,) and drawers (4840,) from 1, in the order of their names."""
    found: dict[tuple[str, int], np.ndarray] = {}
    for path in paths:
        for name, image in read_zip_images(path, "images_background_small?/*.png").items():
            match = _NAME.fullmatch(name)
            if match is None or image.shape != (105, 105):
                raise UserError(f"{path}: {name!r} is no ALPHABET/CHARACTER/ID_DRAWER.png of 105x105 pixels")
            found[match["character"], int(match["drawer"])] = image
    names = sorted({character for character, _ in found})
    keys = [(name, drawer) for name in names for drawer in range(1, NUM_DRAWERS + 1)]
    if len(names) != NUM_CHARACTERS or set(keys) != set(found):
        where = ", ".join(str(path) for path in paths)
        raise UserError(f"{where}: {len(found)} drawings of {len(names)} characters where 4840 of 242 are expected")
    ink = np.stack([found[key] for key in keys]) == 0  # black on white
    means = torch.from_numpy(cell_means(ink, SIDE)).reshape(len(keys), SIDE * SIDE)
    return means, torch.arange(NUM_CHARACTERS).repeat_interleave(NUM_DRAWERS), torch.tensor([key[1] for key in keys])


def cell_means(images: np.ndarray, side: int) -> np.ndarray:
    """Images (N, S, S) reduced to (N, side, side) float32: the mean of all pixels whose centre is in a cell.

    This is the box filter of the Python Imaging Library, without its rounding to 8 bits.
    """
    size = images.shape[1]
    cells = ((2 * np.arange(size) + 1) * side - 1) // (2 * size)  # a centre between two cells: the first
    begins = np.searchsorted(cells, np.arange(side))
    counts = np.bincount(cells, minlength=side).astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(images, begins, axis=1, dtype=np.float32), begins, axis=2)
    return sums / (counts[:, None] * counts)
