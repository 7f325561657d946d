"""The kernel distance of two feature sets: unbiased MMD² with the cubic polynomial kernel, over all pairs.

Source: Demystifying MMD GANs, Bińkowski, Sutherland, Arbel, Gretton, 2018, arXiv 1801.01401. The usual mean over random
subsets estimates the same number with the noise of the subsets on top.
"""

from __future__ import annotations

from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.feature_sets import as_feature_sets
from gmbench.metrics.mmd2 import mmd2


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = (x·y / F + 1)³ of features (N, F) and (M, F): (N, M)."""
    gram = (x @ y.T).div_(x.shape[1]).add_(1)
    return gram * gram * gram


def kernel_distance(x: Tensor, y: Tensor) -> Estimate:
    """The U-statistic of MMD² under `cubic`, which may be negative; its standard error is that of `mmd2`.

    The kernel sees means, covariances and third moments. It grows with the sixth power of the features: standardise
    them, or a few outliers decide.

    Arguments:
        x: Features of generated points, (N, F), N at least 2.
        y: Features of real points, (M, F), M at least 2.
    """
    x, y = as_feature_sets(x, y)
    largest = max(float(x.abs().max()), float(y.abs().max()))
    if largest > 1e50:
        raise ValueError(f"features of up to {largest:.3g} overflow the cubic kernel: standardise them")
    return mmd2(x, y, cubic)
