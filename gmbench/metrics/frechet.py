"""The Frechet distance of two feature sets, as their means and covariances give it, with its standard error.

Sources: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, Heusel, Ramsauer,
Unterthiner, Nessler, Hochreiter, 2017, arXiv 1706.08500 (the distance as a score); On the Bures-Wasserstein distance
between positive definite matrices, Bhatia, Jain, Lim, 2017, arXiv 1712.01504 (the cross term as a minimum of linear
functions).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.feature_sets import as_feature_sets

# Squared singular values of the cross term below this share of them all are rounding; their directions carry nothing.
_NEGLIGIBLE = 1e-13


@torch.no_grad()
def frechet_distance(x: Tensor, y: Tensor) -> Estimate:
    """||m1 - m2||^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2 with the samples' means and (n-1) covariances.

    The kind is `upper_bound`: in expectation the plug-in is at least the distance of the two distributions, whatever
    they are. The means add tr C1 / N + tr C2 / M, and the cross term, a minimum of functions linear in (C1, C2), is
    concave in them, so that unbiased covariances make it too small on average. The excess falls like 1/N and differs by
    N, M and the number of features: compare at equal ones only, and beside the distance of two real sets.

    The standard error is the infinitesimal jackknife's, from the derivative of the distance with respect to the weight
    of every point. It describes the spread of the plug-in about its own mean, not the excess. Where both sets have one
    distribution the derivative vanishes; the error is then up to 1.6 times too wide, and up to 1.4 times with fewer
    points than features.

    Arguments:
        x: Features of generated points, (N, F), N at least 2. Two sets in any order give the same distance.
        y: Features of real points, (M, F), M at least 2.
    """
    x, y = as_feature_sets(x, y)
    # A power of two scales exactly; squares of huge features would overflow, and inf - inf is no distance.
    _, exponent = math.frexp(max(float(x.abs().max()), float(y.abs().max())))
    scale = math.ldexp(1.0, exponent) if exponent < 1000 else math.ldexp(1.0, 1000)
    x, y = x / scale, y / scale

    shift = x.mean(0) - y.mean(0)  # (F,)
    x, y = x - x.mean(0), y - y.mean(0)
    of_x, of_y = _Factor.of(x), _Factor.of(y)
    u, s = _left_singular(of_x, of_y)  # (R, K), (K,)
    square_x, square_y = x.square().sum(1), y.square().sum(1)  # (N,), (M,)
    trace = square_x.sum() / (len(x) - 1) + square_y.sum() / (len(y) - 1)
    value = float(shift.square().sum() + trace - 2 * s.sum())

    # With C1 = A'A, C2 = B'B and A B' = U S V', point x = A'a moves the cross term by a'U S U'a / 2; point y = B'b by
    # b'V S V'b / 2, which is y'A'U S^-1 U'A y / 2, so that no second decomposition is needed.
    cross_x = (of_x.coordinates(x) @ u).square() @ s
    inverse = torch.where(s.square() > _NEGLIGIBLE * s.square().sum(), 1 / s, 0.0)
    cross_y = (y @ (of_x.rows.T @ u)).square() @ inverse
    moved_x = 2 * (x @ shift) + square_x - cross_x  # (N,)
    moved_y = -2 * (y @ shift) + square_y - cross_y  # (M,)
    variance = moved_x.var() / len(x) + moved_y.var() / len(y)
    return Estimate(
        value=max(value, 0.0) * scale * scale,
        stderr=float(variance.sqrt()) * scale * scale,
        n=min(len(x), len(y)),
        kind="upper_bound",
        note="plug-in, biased up: compare with real against real at the same sizes",
    )


@dataclass(frozen=True)
class _Factor:
    """A with A'A = C, the covariance of centred points (N, F).

    Arguments:
        rows: A (R, F).
        how: `cholesky` where C has full rank (A is its upper triangle), `eigen` where it has not, `points` where there
            are no more points than features (A is the points themselves, divided by the square root of N - 1).
    """

    rows: Tensor
    how: str

    @staticmethod
    def of(centred: Tensor) -> _Factor:
        num, dim = centred.shape
        if num <= dim:
            return _Factor(centred / math.sqrt(num - 1), "points")
        covariance = centred.T @ centred / (num - 1)
        lower, failed = torch.linalg.cholesky_ex(covariance)
        if not int(failed):
            return _Factor(lower.T, "cholesky")
        # Features that are constant or depend on each other: the covariance is singular, and A has only its range.
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > values[-1].clamp(min=0) * dim * torch.finfo(values.dtype).eps
        return _Factor(values[kept].sqrt()[:, None] * vectors[:, kept].T, "eigen")

    def coordinates(self, centred: Tensor) -> Tensor:
        """a (N, R) with x = A'a for every one of the points that A was made of."""
        if self.how == "points":
            return math.sqrt(len(centred) - 1) * torch.eye(len(centred), dtype=centred.dtype, device=centred.device)
        if self.how == "cholesky":
            solved: Tensor = torch.linalg.solve_triangular(self.rows, centred, upper=True, left=False)
            return solved
        return centred @ (self.rows / self.rows.square().sum(1, keepdim=True)).T  # its rows are orthogonal


def _left_singular(a: _Factor, b: _Factor) -> tuple[Tensor, Tensor]:
    """U (R, K) and S (K,) of A B' = U S V'; the sum of S is the cross term."""
    product = a.rows @ b.rows.T
    if a.how == b.how == "cholesky":
        # Twice as fast as singular values, and as good where no singular value is near 0.
        values, vectors = torch.linalg.eigh(product @ product.T)
        return vectors, values.clamp(min=0).sqrt()
    u, s, _ = torch.linalg.svd(product, full_matrices=False)
    return u, s
