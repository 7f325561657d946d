"""Binary images of another kind than the data's: what a density should find unlikely."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def bars_and_stripes(num: int, layout: tuple[int, int], *, rng: Generator) -> Tensor:
    """Images (num, H * W) whose rows, or whose columns, are each all ink or none by a fair coin."""
    height, width = layout
    rows = torch.randint(2, (num, height, 1), generator=rng).expand(-1, -1, width)
    columns = torch.randint(2, (num, 1, width), generator=rng).expand(-1, height, -1)
    across = torch.randint(2, (num, 1, 1), generator=rng).bool()
    return torch.where(across, rows, columns).reshape(num, height * width).float()


def mirrored(x: Tensor, layout: tuple[int, int]) -> Tensor:
    """Images x (N, H * W) with left and right exchanged: every pixel has a mean that the data have somewhere."""
    return x.reshape(-1, *layout).flip(-1).reshape(len(x), -1)
