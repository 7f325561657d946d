"""What metrics that compare two sets of features ask of them."""

from __future__ import annotations

import torch
from torch import Tensor

from gmbench.metrics.checks import check_count, check_finite, check_shape


def as_feature_sets(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64: (N, F) generated and (M, F) real, finite, at least two points each.

    Raises:
        ValueError: They are not, in one line.
    """
    for name, points in (("generated features", x), ("real features", y)):
        check_shape(name, points, ("N", "F"))
        check_count(f"the number of {name}", len(points), least=2)
        check_finite(name, points)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets must have the same features, not {x.shape[1]} and {y.shape[1]}")
    return x.to(torch.float64), y.to(torch.float64)
