"""Grids of binary or grey images as PNG bytes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from torch import Tensor

PIXELS = 40  # an image of the grid grows by a whole factor to at most this height and width


def grid(panels: list[Tensor], layout: tuple[int, int], columns: int) -> bytes:
    """Panels of images side by side, each a grid of `columns`, ink black on white.

    Arguments:
        panels: Images (N, H * W) with values in [0, 1]; the same position of every panel belongs together.
        layout: (H, W).
    """
    height, width = layout
    scale = max(2, PIXELS // max(layout))
    gap = np.full((_rows(panels[0], columns) * (height + 1) + 1, 3), 0.5)
    parts = []
    for panel in panels:
        parts += [_panel(panel, height, width, columns), gap]
    page = np.concatenate(parts[:-1], axis=1).repeat(scale, 0).repeat(scale, 1)
    return _png(1 - page)


def _rows(panel: Tensor, columns: int) -> int:
    return -(-len(panel) // columns)


def _panel(images: Tensor, height: int, width: int, columns: int) -> np.ndarray:
    rows = _rows(images, columns)
    page = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), 0.25)
    for index, image in enumerate(images.detach().cpu().double().reshape(-1, height, width).numpy()):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        page[top : top + height, left : left + width] = image
    return page


def _png(grey: np.ndarray) -> bytes:
    from PIL import Image  # a third of a second that only a run that draws should pay

    buffer = BytesIO()
    Image.fromarray((grey * 255).round().astype(np.uint8), mode="L").save(buffer, format="png", optimize=True)
    return buffer.getvalue()
