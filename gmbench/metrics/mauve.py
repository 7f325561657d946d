"""The divergence frontier of two sets of features, and the area under it (MAUVE), with features of one's own.

Both sets are sorted into the cells of one k-means; with P and Q the shares of the cells and R = λ P + (1 - λ) Q, the
frontier is {(exp(-c KL(Q ‖ R)), exp(-c KL(P ‖ R))): 0 < λ < 1}. The area is 1 where P = Q and
c B(c + 1, c) = .004 for c = 5 where they share no cell.

The constants are those of the authors' code (c = 5, 25 weights, no smoothing), and two things are not: features are the
caller's and used as they are, not a language model's with PCA, so the values do not compare with published ones.

Sources: Pillutla, Swayamdipta, Zellers, Thickstun, Welleck, Choi, Harchaoui, "MAUVE: Measuring the Gap Between Neural
Text and Human Text using Divergence Frontiers", 2021, arXiv 2102.01454; Djolonga, Lucic, Cuturi, Bachem, Bousquet,
Gelly, "Precision-Recall Curves Using Information Divergence Frontiers", 2020, arXiv 1905.10768.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_count, check_shape
from gmbench.metrics.feature_sets import as_feature_sets

SCALING = 5.0
NUM_WEIGHTS = 25


def mauve(x: Tensor, y: Tensor, *, num_clusters: int, rng: Generator) -> Estimate:
    """The area under the divergence frontier of generated features x (N, F) and real ones y (M, F), in (0, 1].

    It is a plug-in of shares: two sets of one distribution stay below 1 until N and M are far above the number of
    cells. So a value means something beside that of truth against truth at the same numbers. Its standard error is
    the delta method's, of two multinomials, the cells being given. Of equal distributions the area is quadratic in
    the noise, and the error is that of its slope at the shares that were drawn, somewhat larger than the spread. (A
    bootstrap would add the noise of the shares a second time.)

    Arguments:
        num_clusters: Cells of the k-means on both sets together.
        rng: Seeds the k-means; on the CPU.
    """
    counts = quantised(x, y, num_clusters=num_clusters, rng=rng)
    with torch.enable_grad():
        shares = [(one / one.sum()).requires_grad_() for one in counts]
        area = frontier_area(*shares)
        slopes = torch.autograd.grad(area, shares)
    variance = sum(_variance(*one) / len(z) for one, z in zip(zip(shares, slopes, strict=True), (x, y), strict=True))
    return Estimate(value=float(area.detach()), stderr=math.sqrt(variance), n=min(len(x), len(y)), kind="consistent")


def quantised(x: Tensor, y: Tensor, *, num_clusters: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """How many of x (N, F) and of y (M, F) fall into each cell of one k-means on both, (num_clusters,) float64 each.

    Raises:
        ValueError: There are fewer points than cells.
    """
    from sklearn.cluster import KMeans

    x, y = as_feature_sets(x, y)
    check_count("num_clusters", num_clusters)
    check_count("the number of points", len(x) + len(y), least=num_clusters)
    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    both = torch.cat([x, y])
    labels = torch.from_numpy(KMeans(num_clusters, n_init=1, random_state=seed).fit_predict(both.numpy())).long()
    of_x, of_y = (part.bincount(minlength=num_clusters).double() for part in (labels[: len(x)], labels[len(x) :]))
    return of_x, of_y


def divergence_curve(p: Tensor, q: Tensor, *, scaling: float = SCALING, num_weights: int = NUM_WEIGHTS) -> Tensor:
    """Points (exp(-c KL(Q ‖ R)), exp(-c KL(P ‖ R))) of the frontier from (1, 0) … to (0, 1), (..., num_weights + 2, 2).

    Arguments:
        p, q: Shares of the cells, (..., K), each summing to one.
        scaling: c.
        num_weights: Weights λ of p in the mixture R, evenly from just above 0 to just below 1.
    """
    check_count("num_weights", num_weights, least=2)
    p, q = p.double(), q.double()
    weight = torch.linspace(1e-6, 1 - 1e-6, num_weights, dtype=torch.float64, device=p.device)[:, None]
    mixture = weight * p[..., None, :] + (1 - weight) * q[..., None, :]  # (..., num_weights, K)
    sides = [_divergence(one[..., None, :], mixture) for one in (q, p)]
    inside = torch.exp(-scaling * torch.stack(sides, -1))
    ends = inside.new_tensor([[1.0, 0.0], [0.0, 1.0]]).expand(*inside.shape[:-2], 2, 2)
    # λ from 0 to 1 goes from R = Q, where KL(Q ‖ R) = 0, to R = P
    return torch.cat([ends[..., :1, :], inside, ends[..., 1:, :]], -2)


def frontier_area(p: Tensor, q: Tensor, *, scaling: float = SCALING, num_weights: int = NUM_WEIGHTS) -> Tensor:
    """The area under the divergence curve by trapezia, (...); arguments as for `divergence_curve`.

    Raises:
        ValueError: The shares are of different numbers of cells.
    """
    check_shape("the shares of q", q, tuple(p.shape))
    x, y = divergence_curve(p, q, scaling=scaling, num_weights=num_weights).unbind(-1)
    return -torch.trapezoid(y, x, dim=-1)


def _divergence(p: Tensor, r: Tensor) -> Tensor:
    """KL(p ‖ r) over the last axis, where r is positive wherever p is."""
    return (torch.xlogy(p, p) - torch.xlogy(p, r)).sum(-1).clamp(min=0.0)


def _variance(share: Tensor, slope: Tensor) -> float:
    """That of the slope at the cell of one point."""
    there = share > 0
    p, g = share[there].detach(), slope[there]
    return float((p * (g - (p * g).sum()).square()).sum())
