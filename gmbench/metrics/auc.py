"""The area under the ROC curve of a score that should be larger on one set than on another, with DeLong's error.

Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated receiver
operating characteristic curves: a nonparametric approach", Biometrics 44, 1988.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_log_values, check_shape


def auc(inside: Tensor, outside: Tensor) -> Estimate:
    """P(score of an inside point > score of an outside point), ties counting half.

    Arguments:
        inside: Scores (N,) of points that should score high, N at least 2; -inf is allowed.
        outside: Scores (M,) of points that should score low, M at least 2.
    """
    for name, scores in (("inside", inside), ("outside", outside)):
        check_shape(name, scores, ("N",))
        check_log_values(name, scores)
        if len(scores) < 2:
            raise ValueError(f"{name}: at least 2 scores are needed for a standard error")
    of_inside = _share_below(inside, outside)  # (N,): the share of outside points that each inside point beats
    of_outside = 1 - _share_below(outside, inside)  # (M,)
    variance = float(of_inside.var()) / len(inside) + float(of_outside.var()) / len(outside)
    return Estimate(value=float(of_inside.mean()), stderr=math.sqrt(variance), n=min(len(inside), len(outside)))


def _share_below(x: Tensor, pool: Tensor) -> Tensor:
    """The share of `pool` below each of x, ties counting half, (len(x),) float64."""
    ordered = pool.double().sort().values
    low = torch.searchsorted(ordered, x.double(), right=False)
    high = torch.searchsorted(ordered, x.double(), right=True)
    return (low + high).double() / (2 * len(pool))
