"""Probes, outliers and galleries of the image task."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from building import rng
from gmbench.tasks.images.dynamic_mnist.gallery import grid
from gmbench.tasks.images.dynamic_mnist.outliers import bars_and_stripes, mirrored
from gmbench.tasks.images.dynamic_mnist.probes import few_label_accuracy, probe_accuracy


def clusters(num: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Three classes around the corners of a triangle whose sides are 4 long."""
    classes = torch.randint(3, (num,), generator=rng(seed))
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 3.46]])
    return corners[classes] + spread * torch.randn(num, 2, generator=rng(seed + 100)), classes


def test_probe_reaches_the_accuracy_of_the_best_rule() -> None:
    train, classes = clusters(3000, 0)
    test, test_classes = clusters(3000, 1)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 3.46]])
    best = float((torch.cdist(test, corners).argmin(1) == test_classes).double().mean())
    found = probe_accuracy(train, classes, test, test_classes)
    assert found.value == pytest.approx(best, abs=0.01) and best < 0.99
    assert found.stderr == pytest.approx((best * (1 - best) / 3000) ** 0.5, rel=0.1)
    noise = torch.randn(3000, 2, generator=rng(5))
    assert probe_accuracy(noise, classes, test, test_classes).value < 0.45


def test_few_labels_are_worse_and_less_certain_than_many() -> None:
    train, classes = clusters(3000, 0, spread=1.5)
    test, test_classes = clusters(1000, 1, spread=1.5)

    def few(per_class: int) -> tuple[float, float]:
        one = few_label_accuracy(
            train, classes, test, test_classes, per_class=per_class, num_draws=8, rng=rng(per_class)
        )
        assert one.stderr is not None
        return one.value, one.stderr

    (one, of_one), (ten, of_ten) = few(1), few(10)
    assert one < ten < probe_accuracy(train, classes, test, test_classes).value + 0.01
    assert of_ten < of_one < 0.1


def test_bars_and_stripes_are_constant_along_an_axis() -> None:
    x = bars_and_stripes(400, (3, 5), rng=rng()).reshape(-1, 3, 5)
    in_rows = (x == x[:, :, :1]).all(2).all(1)
    in_columns = (x == x[:, :1]).all(2).all(1)
    assert bool((in_rows | in_columns).all())
    assert 0.3 < float(in_rows.double().mean()) < 0.7 and 0.3 < float(in_columns.double().mean()) < 0.7
    assert float(x.mean()) == pytest.approx(0.5, abs=0.05)


def test_mirroring_exchanges_left_and_right() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
    assert mirrored(x, (2, 3)).tolist() == [[0, 0, 1, 1, 1, 0]]
    assert torch.equal(mirrored(mirrored(x, (2, 3)), (2, 3)), x)


def test_a_grid_shows_every_image_where_it_belongs() -> None:
    images = torch.zeros(5, 6)
    images[3] = 1
    again = 1 - images
    png = grid([images, again], (2, 3), columns=2)
    page = np.asarray(Image.open(BytesIO(png)))
    scale = page.shape[0] // 10  # three rows of images of height 2 and their rules
    assert page.shape == (10 * scale, (9 + 3 + 9) * scale)

    def centre(panel: int, index: int) -> int:
        top, left = index // 2 * 3 + 1, index % 2 * 4 + 1 + panel * 12
        return int(page[int((top + 1) * scale), int((left + 1.5) * scale)])

    assert [centre(0, index) for index in range(5)] == [255, 255, 255, 0, 255]  # ink is black
    assert [centre(1, index) for index in range(5)] == [0, 0, 0, 255, 0]
    assert grid([images, again], (2, 3), columns=2) == png
