"""Maximum pseudo-likelihood for free Ising couplings: dense, with L1, on a known support, and tied.

J. Besag, Statistical Analysis of Non-Lattice Data, 1975; with L1: P. Ravikumar, M. J. Wainwright, J. D. Lafferty,
High-Dimensional Ising Model Selection Using l1-Regularized Logistic Regression, 2010 (arXiv 1010.0311), here jointly
over all sites with J symmetric; EBIC: J. Chen and Z. Chen, Extended Bayesian Information Criteria, 2008.

The loss is (1/N) sum_n sum_i log(1 + exp(-4 s_i (Js)_i)) in nats, s = 2x - 1. Every function takes states x (N, D) in
{0,1} and returns float64 couplings (D, D) on the same device, symmetric, with a zero diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
import torch
import torch.nn.functional as F
from torch import Tensor

from .lattice import spins

LAMBDAS = (0.24, 0.2, 0.16, 0.12, 0.09, 0.06, 0.04)
BOUND = 1.0  # of |J_ij|, twice the strongest coupling of the task: on nearly constant data the maximum is at infinity


def pseudo_loss(x: Tensor, J: Tensor) -> float:
    """The mean negative log pseudo-likelihood of states under couplings with a zero diagonal, in nats a state."""
    s = spins(x)
    return _loss(s, J.to(s))[0]


def fit_dense(x: Tensor) -> Tensor:
    """All D(D-1)/2 couplings free."""
    num_sites = x.shape[1]
    return fit_on_support(x, torch.ones(num_sites, num_sites, dtype=torch.bool))


def fit_on_support(x: Tensor, mask: Tensor, *, start: Tensor | None = None, max_iter: int = 2000) -> Tensor:
    """Free couplings on the edges of a mask, all others zero and none beyond `BOUND`, by L-BFGS-B to convergence.

    Stopping early regularises, and in the ordered phase it moves -ln RMSE by more than one: it is not done here.

    Arguments:
        x: States (N, D).
        mask: Which pairs may couple: (D, D), symmetric, bool or 0/1; the diagonal is ignored.
        start: Couplings to start from (default: zero).
        max_iter: Most iterations.
    """
    s = spins(x)
    num_sites = s.shape[1]
    row, column = torch.triu(mask.to(s.device).bool(), diagonal=1).nonzero(as_tuple=True)

    def matrix(theta: np.ndarray) -> Tensor:
        J = s.new_zeros(num_sites, num_sites)
        J[row, column] = torch.from_numpy(theta).to(s)
        return J + J.mT

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = _loss(s, matrix(theta))
        return loss, 2 * gradient[row, column].cpu().numpy()  # an edge stands in J twice

    if start is None:
        theta = np.zeros(len(row))
    else:
        theta = start.to(s)[row, column].cpu().numpy()
    if len(theta):
        theta = scipy.optimize.minimize(
            objective,
            theta,
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(-BOUND, BOUND),
            options={"maxiter": max_iter, "maxfun": 2 * max_iter, "ftol": 1e-13, "gtol": 1e-6, "maxcor": 20},
        ).x
    return matrix(theta)


def fit_tied(x: Tensor, A: Tensor) -> Tensor:
    """One free number: J = sigma A with the best sigma within `BOUND`; A (D, D) symmetric with a zero diagonal."""
    s = spins(x)
    A = A.to(s)
    # s_i (As)_i takes few values on a lattice: count them once
    values, counts = torch.unique(s * (s @ A), return_counts=True)

    def objective(sigma: float) -> float:
        return float((F.softplus(-4 * sigma * values) * counts).sum() / len(s))

    best = scipy.optimize.minimize_scalar(objective, bounds=(-BOUND, BOUND), method="bounded", options={"xatol": 1e-9})
    return float(best.x) * A


def fit_l1(x: Tensor, lam: float, *, start: Tensor | None = None, tol: float = 1e-5, max_iter: int = 2000) -> Tensor:
    """The minimum of loss + lam ||J||_1, the norm over all D^2 entries (an edge counts twice, as in the literature).

    Accelerated proximal gradient (A. Beck and M. Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm, 2009)
    with backtracking and restarts: zeros are exact.

    Arguments:
        x: States (N, D).
        lam: Weight of the penalty, at least 0.
        start: Couplings to start from (default: zero).
        tol: Stop when no entry violates the optimality condition by more than this, in units of the gradient.
        max_iter: Most gradient steps.
    """
    s = spins(x)
    J = s.new_zeros(s.shape[1], s.shape[1]) if start is None else start.to(s).clone()
    point, momentum, step = J, 1.0, 0.25
    for _ in range(max_iter):
        loss, gradient = _loss(s, point)
        while True:
            proposal = F.softshrink(point - step * gradient, step * lam)
            delta = proposal - point
            bound = loss + float((gradient * delta).sum()) + float(delta.square().sum()) / (2 * step)
            if _loss_only(s, proposal) <= bound + 1e-12 * abs(loss):
                break
            step /= 2
        if float(delta.abs().max()) <= tol * step:
            return proposal
        if float((delta * (proposal - J)).sum()) < 0:  # the momentum points uphill: restart
            momentum = 1.0
        next_momentum = (1 + math.sqrt(1 + 4 * momentum * momentum)) / 2
        point = proposal + (momentum - 1) / next_momentum * (proposal - J)
        J, momentum, step = proposal, next_momentum, step * 1.1
    return J


def l1_path(x: Tensor, lams: Sequence[float] = LAMBDAS) -> list[tuple[float, Tensor]]:
    """(lambda, couplings) along a falling sequence of penalties, each fit started from the one before."""
    path: list[tuple[float, Tensor]] = []
    for lam in sorted(lams, reverse=True):
        path.append((lam, fit_l1(x, lam, start=path[-1][1] if path else None)))
    return path


def choose_lambda(
    x: Tensor,
    lams: Sequence[float] = LAMBDAS,
    *,
    fit: Callable[[Tensor, float], Tensor] | None = None,
    train_share: float = 0.8,
) -> float:
    """The penalty whose fit on the first states has the best pseudo-likelihood on the remaining ones.

    The rule serves every coupling learner: `fit(x, lam)` may be any of them (default: `fit_l1` along the path).

    Arguments:
        x: Independent states (N, D) in any order.
        lams: Candidates.
        fit: Couplings learned from states under a penalty.
        train_share: Share of the states that are fitted (1600 of 2000).
    """
    num_train = round(train_share * len(x))
    train, held_out = x[:num_train], x[num_train:]
    path = l1_path(train, lams) if fit is None else [(lam, fit(train, lam)) for lam in lams]
    return min((pseudo_loss(held_out, J), lam) for lam, J in path)[1]


def support_then_refit(
    x: Tensor, lams: Sequence[float] = LAMBDAS, *, gamma: float = 0.5, threshold: float = 1e-3
) -> Tensor:
    """Supports from the L1 path, refitted without penalty; the best by the extended BIC.

    Minimises N loss + k ln N + 4 gamma k ln D over the empty support and the supports |J_ij| > threshold with k
    edges; the path ends where k exceeds 12 D, since no lattice has so many edges and the refits would be dense.
    In the ordered phase even the first penalty can leave more: then the zero matrix is the answer.

    Arguments:
        x: States (N, D).
        lams: Penalties that propose supports.
        gamma: Weight of the extended term.
        threshold: Smallest |J_ij| of an edge.
    """
    num_states, num_sites = x.shape
    start: Tensor | None = None
    empty = torch.zeros(num_sites, num_sites, dtype=torch.float64, device=x.device)
    best = (num_states * pseudo_loss(x, empty), empty)
    for lam in sorted(lams, reverse=True):
        start = fit_l1(x, lam, start=start)
        mask = start.abs() > threshold
        num_edges = int(mask.sum()) // 2
        if num_edges > 12 * num_sites:
            break
        J = fit_on_support(x, mask, start=start)
        ebic = num_states * pseudo_loss(x, J) + num_edges * (math.log(num_states) + 4 * gamma * math.log(num_sites))
        if ebic < best[0]:
            best = (ebic, J)
    return best[1]


def _loss_only(s: Tensor, J: Tensor) -> float:
    return -float(F.logsigmoid(4 * s * (s @ J)).sum()) / len(s)


def _loss(s: Tensor, J: Tensor) -> tuple[float, Tensor]:
    """The loss, and its gradient among symmetric matrices with a zero diagonal: (D, D), both halves alike."""
    margin = 4 * s * (s @ J)  # (N, D)
    loss = -float(F.logsigmoid(margin).sum()) / len(s)
    gradient = (s * torch.sigmoid(-margin)).mT @ s * (-4 / len(s))
    gradient = (gradient + gradient.mT) / 2
    gradient.fill_diagonal_(0.0)
    return loss, gradient
