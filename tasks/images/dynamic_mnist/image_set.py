"""What every source of images gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in three parts, float32 rows of D = H * W pixels, row-major, ink = 1.

    The order within the held-out parts is random but fixed, so that the first rows are a fair sample of them (the
    files of MNIST begin with the neater writers, the static test file with all its zeros). A set is shared by all who
    ask for it: its tensors are not to be changed.

    Arguments:
        train: (N, D) means of pixels in [0, 1] where `dynamic`, else bits.
        validation: (M, D) bits.
        test: (T, D) bits.
        layout: (H, W).
        dynamic: Whether training images are binarized anew whenever they are drawn.
        train_classes: (N,) int64, or None where the images have no classes; `validation_classes` and `test_classes`
            likewise.
        num_classes: The number of classes, 0 where there are none.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    layout: tuple[int, int]
    dynamic: bool
    train_classes: Tensor | None = None
    validation_classes: Tensor | None = None
    test_classes: Tensor | None = None
    num_classes: int = 0
