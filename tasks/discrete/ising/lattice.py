"""The square lattice of the Ising task: which spins interact, and how strongly.

Convention of the whole task: a state is x in {0,1}^D with D = side^2, numbered row by row; its spins are s = 2x - 1;
log p(x) = s'Js - log Z with J symmetric. Both (i,j) and (j,i) count, so an edge couples with strength K = 2 J_ij.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Boundary = Literal["periodic", "open"]


def adjacency(side: int, *, boundary: Boundary = "periodic") -> Tensor:
    """The adjacency matrix of the square lattice.

    Arguments:
        side: Sites along one side. A periodic lattice needs at least 3: with 2, each pair of neighbours would be
            joined by two edges, for which the literature has no agreed reading.
        boundary: `periodic` (a torus, four neighbours everywhere) or `open`.

    Returns:
        A (D, D), float64, symmetric, entries 0 and 1, zero diagonal; site (row, column) has number row * side + column.

    Raises:
        ValueError: A side that is too small, or an unknown boundary.
    """
    if boundary not in ("periodic", "open"):
        raise ValueError(f"the boundary is 'periodic' or 'open', not {boundary!r}")
    smallest = 3 if boundary == "periodic" else 1
    if side < smallest:
        raise ValueError(f"an {boundary} lattice needs a side of at least {smallest}, not {side}")
    site = torch.arange(side * side).reshape(side, side)
    A = torch.zeros(side * side, side * side, dtype=torch.float64)
    for axis in (0, 1):
        neighbour = site.roll(-1, dims=axis)
        num = side if boundary == "periodic" else side - 1
        i = site.narrow(axis, 0, num).reshape(-1)
        j = neighbour.narrow(axis, 0, num).reshape(-1)
        A[i, j] = 1.0
        A[j, i] = 1.0
    return A


def couplings(side: int, sigma: float, *, boundary: Boundary = "periodic") -> Tensor:
    """The true couplings J = sigma A of the task, (D, D) float64; an edge has K = 2 sigma (arguments: `adjacency`)."""
    return sigma * adjacency(side, boundary=boundary)


def spins(x: Tensor) -> Tensor:
    """States {0,1} of any shape to spins {-1,+1} of the same shape, float64."""
    return x.to(torch.float64).mul(2.0).sub_(1.0)


def log_weight(x: Tensor, J: Tensor) -> Tensor:
    """The unnormalised log probability s'Js of states x (B, D) under couplings J (D, D): (B,) nats, float64."""
    s = spins(x)
    return torch.einsum("bi,bi->b", s @ J.to(s), s)


def supported_by_lattice(J: Tensor, side: int, tol: float = 0.0) -> bool:
    """Whether J couples only neighbours of the periodic lattice, so that its partition function is exact.

    Arguments:
        J: Couplings (D, D); only the symmetric part matters, and the diagonal never does (s_i^2 = 1).
        side: Sites along one side; sides above 12 are too large for the transfer matrix and give False.
        tol: The largest |J_ij| off the lattice that counts as zero. Dropping such entries changes
            log Z by at most the sum of their absolute values.

    Raises:
        ValueError: J is not (side^2, side^2).
    """
    _check_shape(J, side)
    if side > 12:
        return False
    off = adjacency(side, boundary="periodic" if side > 2 else "open") == 0
    off.fill_diagonal_(False)
    symmetric = (J + J.mT) / 2
    return bool((symmetric.abs().cpu()[off] <= tol).all())


def edge_couplings(J: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The couplings K = J_ij + J_ji of a matrix along the edges of the periodic lattice.

    Arguments:
        J: Couplings (D, D); entries off the lattice are ignored. An open lattice has K = 0 on the edges that wrap.
        side: Sites along one side, at least 3.

    Returns:
        right (side, side): K between (row, column) and (row, column + 1); down (side, side): K between (row, column)
        and (row + 1, column); indices modulo side, float64.

    Raises:
        ValueError: J is not (side^2, side^2), or the side is below 3.
    """
    _check_shape(J, side)
    if side < 3:
        raise ValueError(f"edge couplings need a side of at least 3, not {side}")
    site = torch.arange(side * side, device=J.device).reshape(side, side)
    K = (J + J.mT).to(torch.float64)
    return K[site, site.roll(-1, dims=1)], K[site, site.roll(-1, dims=0)]


def _check_shape(J: Tensor, side: int) -> None:
    if J.shape != (side * side, side * side):
        raise ValueError(f"couplings of a lattice of side {side} are {side * side} x {side * side}, not {J.shape}")
