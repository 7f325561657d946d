"""Exact moments of the uniform periodic Ising lattice, and the same moments of samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .lattice import couplings, edge_couplings, log_weight, spins
from .transfer import apply_down, row_states, row_weights, suffix_products


@dataclass(frozen=True)
class Moments:
    """What samples of the model can be compared with.

    Arguments:
        energy_per_site: Mean of -s'Js / D, in nats.
        magnetisation: P(|m| = v / D) for v = 0..D, where m = mean of the spins: (D + 1,), zero where D - v is odd.
        correlation: Mean of s_{r,c} s_{r+dr,c+dc}, indexed [dr, dc]: (side, side), entry [0, 0] is 1.
    """

    energy_per_site: float
    magnetisation: Tensor
    correlation: Tensor


def exact_moments(side: int, sigma: float) -> Moments:
    """Moments of log p = sigma s'As - log Z on the periodic lattice, exact to rounding.

    Arguments:
        side: Sites along one side, 3 to 10. Time at 10 on one thread: about 3.5 s.
        sigma: Coupling of any sign; K = 2 sigma an edge.

    Raises:
        ValueError: A side outside 3 to 10.
    """
    if not 3 <= side <= 10:
        raise ValueError(f"exact moments serve sides of 3 to 10, not {side}")
    correlation = spin_correlation(side, sigma)
    # Each site has four neighbours at the same coupling, and two of the four displacements are distinct.
    energy = -sigma * 2 * float(correlation[0, 1] + correlation[1, 0])
    return Moments(energy, magnetisation_distribution(side, sigma), correlation)


def spin_correlation(side: int, sigma: float) -> Tensor:
    """<s_{r,c} s_{r+dr,c+dc}> by transfer matrices: (side, side) float64, indexed [dr, dc].

    <s_c(row 0) s_c'(row d)> = sum_ab s_c(a) T^d[a,b] s_c'(b) T^{L-d}[b,a] / Z, averaged over columns.
    """
    _, S = suffix_products(*edge_couplings(couplings(side, sigma), side))  # S[r] ~ T^(L - r)
    states = row_states(side)
    correlation = torch.empty(side, side, dtype=torch.float64)
    column = torch.arange(side)
    for d in range(side):
        if d == 0:
            joint = S[0].diagonal().diag()
        else:
            joint = S[side - d] * S[d].mT
        pairs = states.mT @ joint @ states / joint.sum()  # (L, L): columns of the two rows
        for dc in range(side):
            correlation[d, dc] = pairs[column, (column + dc) % side].mean()
    return correlation


def magnetisation_distribution(side: int, sigma: float) -> Tensor:
    """The exact distribution of |sum of spins|: (D + 1,) float64, entry v = P(|sum| = v).

    For one first row of each class under rotation, reflection and global flip, the weight of every (current row,
    number of up spins so far) is pushed through the rows and closed on the first: sums of positive terms only.
    """
    right, down = edge_couplings(couplings(side, sigma), side)
    states = row_states(side)
    log_w = row_weights(right[0], states)
    weight = (log_w - log_w.max()).exp()
    num_up = ((states + 1) / 2).sum(1).long()
    same_up = [(num_up == k).nonzero().squeeze(1) for k in range(side + 1)]
    first, multiplicity = _row_classes(side)
    # table[f, n, a]: first row f, n up spins in the rows before the current one, current row a
    table = torch.zeros(len(first), side * side + 1, 2**side, dtype=torch.float64)
    table[torch.arange(len(first)), 0, first] = 1.0
    V = apply_down(torch.eye(2**side, dtype=torch.float64), down[0])
    for r in range(side):
        filled = r * side + 1
        counted = torch.zeros_like(table)
        for k, rows in enumerate(same_up):
            counted[:, k : k + filled, rows] = table[:, :filled, rows] * weight[rows]
        table.zero_()
        table[:, : filled + side] = counted[:, : filled + side] @ V
        table /= table.max()
    closed = table[torch.arange(len(first)), :, first] * multiplicity[:, None]  # (F, D + 1)
    by_up = closed.sum(0)
    by_up = by_up + by_up.flip(0)  # the global flip
    total = 2 * torch.arange(side * side + 1) - side * side
    result = torch.zeros(side * side + 1, dtype=torch.float64)
    return result.index_add_(0, total.abs(), by_up / by_up.sum())


def sample_energy_per_site(x: Tensor, J: Tensor) -> Tensor:
    """-s'Js / D of each state: x (B, D) in {0,1}, J (D, D) -> (B,) nats, float64."""
    return -log_weight(x, J) / x.shape[1]


def sample_magnetisation(x: Tensor) -> Tensor:
    """The empirical distribution of |sum of spins|: x (B, D) in {0,1} -> (D + 1,) float64, summing to one."""
    total = spins(x).sum(1).abs().round().long()
    return torch.bincount(total, minlength=x.shape[1] + 1).to(torch.float64) / len(x)


def sample_correlation(x: Tensor, side: int) -> Tensor:
    """The correlation of each state, averaged over the torus: x (B, D) -> (B, side, side) float64, [b, dr, dc]."""
    s = spins(x).reshape(-1, side, side)
    spectrum = torch.fft.rfft2(s).abs().square()
    correlation: Tensor = torch.fft.irfft2(spectrum, s=(side, side))
    return correlation / (side * side)


def _row_classes(side: int) -> tuple[Tensor, Tensor]:
    """One row state of each class under rotation, reflection and flip, and the sizes of the classes."""
    states = (row_states(side) > 0).long()
    place = 2 ** torch.arange(side - 1, -1, -1)
    images = []
    for flipped in (states, 1 - states):
        for reflected in (flipped, flipped.flip(1)):
            images += [reflected.roll(shift, dims=1) @ place for shift in range(side)]
    canonical = torch.stack(images).min(dim=0).values  # (2^L,)
    first, multiplicity = torch.unique(canonical, return_counts=True)
    return first, multiplicity.to(torch.float64)
