"""The transfer matrices of a square lattice, row by row: the states of a row, their weights, and products of both.

A row of L spins has 2^L states; state k holds the binary digits of k, column 0 the most significant; 1 means +1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_states(side: int, *, device: torch.device | None = None) -> Tensor:
    """The spins of every state of one row: (2^L, L) float64 in {-1,+1}."""
    digits = torch.arange(2**side, device=device)[:, None] >> torch.arange(side - 1, -1, -1, device=device) & 1
    return digits.to(torch.float64) * 2 - 1


def row_weights(right: Tensor, states: Tensor) -> Tensor:
    """The log weight sum_c K_c s_c s_{c+1} within a row: right (L,), states (2^L, L) -> (2^L,) nats."""
    return (states * states.roll(-1, dims=1)) @ right


def apply_down(vectors: Tensor, down: Tensor) -> Tensor:
    """Rows of weights times V, V_ab = exp(sum_c (K_c a_c b_c - |K_c|)), without forming V.

    V is a Kronecker product of L matrices of size 2 x 2, which costs L 2^L a vector instead of 4^L. The factor
    exp(-|K_c|) keeps every entry at most one.

    Arguments:
        vectors: (..., 2^L) float64.
        down: K_c (L,), between this row and the next, of any sign.

    Returns:
        A new tensor of the shape of `vectors`.
    """
    shape = vectors.shape
    same = (down - down.abs()).exp()
    other = (-down - down.abs()).exp()
    for c in range(len(down)):
        v = vectors.reshape(-1, 2, 2 ** (len(down) - 1 - c))  # digit c stands alone on the middle axis
        vectors = v * same[c] + v.flip(1) * other[c]
    return vectors.reshape(shape)


def suffix_products(right: Tensor, down: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Transfer matrices T_r and their products S_r = T_r T_{r+1} ... T_{L-1}, each up to a factor of its own.

    Arguments:
        right: Couplings within rows (L, L).
        down: Couplings between rows (L, L), the last row to the first.

    Returns:
        T and S: L matrices (2^L, 2^L) each, float64, non-negative, largest entry 1; T_r = diag(w_r) V_r.
    """
    side = right.shape[0]
    states = row_states(side, device=right.device)
    T = []
    for r in range(side):
        log_t = row_weights(right[r], states)[:, None] + (states * down[r]) @ states.mT
        T.append((log_t - log_t.max()).exp())
    S = [T[-1]]
    for r in range(side - 2, -1, -1):
        product = T[r] @ S[0]
        S.insert(0, product / product.max())
    return T, S
