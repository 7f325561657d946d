"""Precision, recall, density and coverage of generated points by nearest-neighbour balls in a feature space.

Sources: Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi, Karras, Laine, Lehtinen,
Aila, 2019, arXiv 1904.06991 (precision, recall); Reliable Fidelity and Diversity Metrics for Generative Models, Naeem,
Oh, Uh, Choi, Yoo, 2020, arXiv 2002.09797 (density, coverage).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_count
from gmbench.metrics.feature_sets import as_feature_sets

# Blocks of 256 x 10 000 float64 stay in cache: 1024 rows took twice as long.
_BLOCK = 256
# A point on the surface of a ball is inside: squared distances are compared with this much room for their rounding.
_ROUNDING = 1e-12
_CONSERVATIVE = "stderr by leaving out single points and balls: up to twice too wide"


class Neighbours(NamedTuple):
    """How two sets cover each other; all four are shares, but density may exceed 1."""

    precision: Estimate
    """Share of generated points inside any real ball."""
    recall: Estimate
    """Share of real points inside any generated ball."""
    density: Estimate
    """Mean over generated points of the number of real balls around them, divided by k."""
    coverage: Estimate
    """Share of real balls with a generated point inside."""


@torch.no_grad()
def neighbours(generated: Tensor, real: Tensor, *, k: int) -> Neighbours:
    """Precision, recall, density and coverage, exact, in blocks of rows; memory grows with N + M, not with N·M.

    A ball is closed, centred at a point, and reaches to its k-th nearest neighbour in its own set, itself not counted.
    What is estimated are the expected values at these N, M and k, which change with each of them: compare at equal
    ones only.

    A standard error has two parts: the points' own, as of independent ones, and that of the other set, from what each
    of its members alone decides. Balls are left out without letting their neighbours' grow, which makes the errors of
    the three shares wide (1.1 to 2 times in simulations, more where a share is almost 1); the density's is within a
    quarter.

    Arguments:
        generated: Features of generated points, (N, F), N above k.
        real: Features of real points, (M, F), M above k.
        k: Which neighbour a ball reaches to, at least 1.
    """
    x, y = as_feature_sets(generated, real)
    check_count("k", k)
    for name, points in (("generated", x), ("real", y)):
        if len(points) <= k:
            raise ValueError(f"{len(points)} {name} points are too few for a {k}-th nearest neighbour")
    # Distances do not see the shift; it keeps ‖x‖² + ‖y‖² - 2 x·y from cancelling.
    x, y = x - y.mean(0), y - y.mean(0)
    reach_x, reach_y = _squared_reach(x, k), _squared_reach(y, k)  # (N,), (M,)
    norms_x, norms_y = (1 - _ROUNDING) * x.square().sum(1), (1 - _ROUNDING) * y.square().sum(1)
    in_real = _Hits.none(len(x), len(y), x.device)  # generated points, by the real balls around them
    holds = _Hits.none(len(y), len(x), x.device)  # real balls, by the generated points inside
    in_generated = _Hits.none(len(y), len(x), x.device)  # real points, by the generated balls around them
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = torch.addmm(norms_y, x[rows], y.T, alpha=-2).add_(norms_x[rows, None])  # (B, M)
        inside = (squared <= reach_y).float()
        in_real.put(rows, inside)
        holds.add(start, inside)
        in_generated.add(start, (squared <= reach_x[rows, None]).float())
    per_point, per_ball = in_real.num.double() / k, holds.num.double() * (len(y) / (k * len(x)))  # (N,), (M,)
    density = Estimate(
        value=float(per_point.mean()),
        stderr=math.sqrt(float(per_point.var()) / len(x) + float(per_ball.var()) / len(y)),
        n=len(x),
    )
    return Neighbours(in_real.share(), in_generated.share(), density, holds.share())


@dataclass
class _Hits:
    """How many members of another set hit each point of a set, and which one does where it is only one.

    Arguments:
        num: Hits of each point, (N,).
        only: The other set's member that hit the point, valid where `num` is 1, (N,).
        num_others: Members of the other set.
    """

    num: Tensor
    only: Tensor
    num_others: int

    @classmethod
    def none(cls, num_points: int, num_others: int, device: torch.device) -> _Hits:
        num = torch.zeros(num_points, dtype=torch.int64, device=device)
        return cls(num, num.clone(), num_others)

    def put(self, rows: slice, hits: Tensor) -> None:
        """Takes hits (B, M) of the points `rows` by all of the others."""
        numbers = torch.arange(hits.shape[1], dtype=hits.dtype, device=hits.device)
        self.num[rows] = hits.sum(1).long()
        self.only[rows] = (hits @ numbers).long()  # a sum of one term, exact below 2^24 members

    def add(self, start: int, hits: Tensor) -> None:
        """Takes hits (B, N) of all points by the others `start`, `start` + 1, …"""
        numbers = torch.arange(len(hits), dtype=hits.dtype, device=hits.device)
        num = hits.sum(0).long()
        self.only = torch.where(num == 1, start + (numbers @ hits).long(), self.only)
        self.num += num

    def share(self) -> Estimate:
        """The share of points that are hit."""
        hit = (self.num > 0).double()
        decided = torch.bincount(self.only[self.num == 1], minlength=self.num_others).double()  # points lost without it
        variance = hit.var() / len(hit) + (decided - decided.mean()).square().sum() / len(hit) ** 2
        return Estimate(value=float(hit.mean()), stderr=float(variance.sqrt()), n=len(hit), note=_CONSERVATIVE)


def _squared_reach(x: Tensor, k: int) -> Tensor:
    """Squared distance of every point (N, F) to its k-th nearest neighbour in the set, (N,)."""
    norms = x.square().sum(1)
    reach = torch.empty_like(norms)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = torch.addmm(norms, x[rows], x.T, alpha=-2).add_(norms[rows, None])
        squared.diagonal(start).fill_(math.inf)
        reach[rows] = squared.topk(k, dim=1, largest=False).values[:, -1]
    return reach.clamp_(min=0)
