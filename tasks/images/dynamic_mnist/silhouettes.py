"""Caltech 101 Silhouettes of 28x28 pixels, from the file that holds them all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmbench.data.matlab import read_mat
from gmbench.errors import UserError

from .image_set import ImageSet
from .splits import shuffled, stratified

NUM_IMAGES, NUM_CLASSES = 8671, 101


@cache
def silhouettes(path: Path) -> ImageSet:
    """8671 upright silhouettes, ink = 1, in an own split of 4100 / 2264 / 2307 images.

    The sizes are those of the published `split1`, but which images are in which part is not: that file is another one,
    and likelihoods on the two are not comparable. This split is random but fixed, and stratified by class, except that
    the 54 images that are equal to another one (8 pictures, the commonest 25 times) are all for training: validation
    and test images are distinct, and none is a training image. The file's pixels are column-major with 1 for the
    background, so images are transposed and inverted.

    Raises:
        UserError: The file is damaged or has other arrays.

    References:
        Inductive principles for restricted Boltzmann machine learning, B. M. Marlin, K. Swersky, B. Chen and
        N. de Freitas, 2010.
    """
    arrays = read_mat(path, "X", "Y")
    X, Y = arrays["X"], arrays["Y"].reshape(-1)
    if X.shape != (NUM_IMAGES, 784) or not np.isin(X, (0, 1)).all():
        raise UserError(f"{path}: X is not {NUM_IMAGES} rows of 784 bits")
    if len(Y) != NUM_IMAGES or set(np.unique(Y)) != set(range(1, NUM_CLASSES + 1)):
        raise UserError(f"{path}: Y is not {NUM_IMAGES} classes from 1 to {NUM_CLASSES}")
    ink = 1 - X.astype(np.uint8).reshape(-1, 28, 28).transpose(0, 2, 1)
    bits = torch.from_numpy(np.ascontiguousarray(ink)).reshape(-1, 784).float()
    classes = torch.from_numpy(Y.astype(np.int64)) - 1
    order = stratified("caltech", classes)
    order = order[_has_copies(bits)[order].int().argsort(descending=True, stable=True)]
    train, validation, test = order.split([4100, 2264, 2307])
    parts = (train[shuffled("caltech/train", len(train))], validation, test)
    images, labels = [bits[part] for part in parts], [classes[part] for part in parts]
    return ImageSet(*images, (28, 28), False, *labels, num_classes=NUM_CLASSES)


def _has_copies(bits: Tensor) -> Tensor:
    """Whether another row is equal to each row, (N,) bool."""
    packed = np.packbits(bits.numpy().astype(bool), axis=1)
    _, group, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    return torch.from_numpy(counts[group.reshape(-1)] > 1)
