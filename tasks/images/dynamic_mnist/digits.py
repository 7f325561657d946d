"""Handwritten digits: scikit-learn's 8x8 images, MNIST, and the static binarization of MNIST."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmbench.data.amat import read_amat
from gmbench.data.idx import read_idx
from gmbench.errors import UserError

from .binarization import binarize_once
from .image_set import ImageSet
from .splits import shuffled, stratified

DIGITS8_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
NUM_TRAIN = 50_000  # of the 60 000 images of MNIST's training file; the others are for validation


@cache
def digits8() -> ImageSet:
    """1797 digits of 8x8 pixels with 17 grey levels, inside scikit-learn; split 1097 / 200 / 500, stratified by class.

    Raises:
        UserError: The installed scikit-learn has other images.
    """
    from sklearn.datasets import load_digits

    levels, classes = load_digits(return_X_y=True)  # (1797, 64) float64 in 0..16
    check_digits8(levels, classes)
    means = torch.from_numpy(levels).float() / 16
    labels = torch.from_numpy(classes).long()
    parts = stratified("digits8", labels).split([1097, 200, 500])
    return _dynamic("digits8", [means[part] for part in parts], [labels[part] for part in parts], (8, 8))


def check_digits8(levels: NDArray[np.generic], classes: NDArray[np.generic]) -> None:
    """Raises UserError unless these are the images and classes of the released digits, in their order."""
    parts = (levels.astype(np.uint8), classes.astype(np.uint8))
    found = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    if levels.shape != (1797, 64) or found != DIGITS8_SHA256:
        raise UserError(
            "load_digits of the installed scikit-learn gives other images than this task's: "
            f"SHA-256 {found[:12]}… where {DIGITS8_SHA256[:12]}… is expected"
        )


@cache
def mnist(train_images: Path, train_labels: Path, test_images: Path, test_labels: Path) -> ImageSet:
    """MNIST from its four idx files: the first 50 000 training images, the last 10 000 of that file for validation.

    Raises:
        UserError: A file is damaged, or not what its name says.
    """
    images, labels = _pixels(train_images, 60_000), _labels(train_labels, 60_000)
    order = NUM_TRAIN + shuffled("mnist/validation", 10_000)
    test_order = shuffled("mnist/test", 10_000)
    held_out, held_out_labels = _pixels(test_images, 10_000), _labels(test_labels, 10_000)
    rows = [images[:NUM_TRAIN], images[order], held_out[test_order]]
    means = [part.float().div_(255) for part in rows]
    return _dynamic("mnist", means, [labels[:NUM_TRAIN], labels[order], held_out_labels[test_order]], (28, 28))


@cache
def mnist_static(train: Path, validation: Path, test: Path) -> ImageSet:
    """The fixed binarization of MNIST in 50 000 / 10 000 / 10 000 images, without classes, from its three amat files.

    Raises:
        UserError: A file is damaged, or has another number of images.

    References:
        On the quantitative analysis of deep belief networks, R. Salakhutdinov and I. Murray, 2008 (the binarization).
        The neural autoregressive distribution estimator, H. Larochelle and I. Murray, 2011 (the files).
    """
    parts = []
    for path, expected in ((train, 50_000), (validation, 10_000), (test, 10_000)):
        bits = read_amat(path, width=784)
        if len(bits) != expected:
            raise UserError(f"{path}: {len(bits)} images where {expected} are expected")
        parts.append(torch.from_numpy(bits).float())
    orders = [shuffled(f"mnist_static/{part}", 10_000) for part in ("validation", "test")]
    return ImageSet(parts[0], parts[1][orders[0]], parts[2][orders[1]], layout=(28, 28), dynamic=False)


def _dynamic(name: str, means: list[Tensor], labels: list[Tensor], layout: tuple[int, int]) -> ImageSet:
    """Training images keep their means; the others are binarized once."""
    validation, test = (binarize_once(means[part], name, which) for part, which in ((1, "validation"), (2, "test")))
    return ImageSet(means[0], validation, test, layout, True, *labels, num_classes=10)


def _pixels(path: Path, num: int) -> Tensor:
    """(num, 784) uint8."""
    found = read_idx(path, num_dims=3)
    if found.shape != (num, 28, 28) or found.dtype != np.uint8:
        raise UserError(f"{path}: {found.dtype} {found.shape} where uint8 {(num, 28, 28)} is expected")
    return torch.tensor(found).reshape(num, 784)


def _labels(path: Path, num: int) -> Tensor:
    """(num,) int64."""
    found = read_idx(path, num_dims=1)
    if found.shape != (num,) or found.dtype != np.uint8 or found.max() > 9:
        raise UserError(f"{path}: no {num} labels of 0 to 9")
    return torch.tensor(found).long()
