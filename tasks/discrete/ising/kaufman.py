"""The closed form of the Ising partition function on a torus."""

from __future__ import annotations

import math

import numpy as np


def kaufman_log_partition(side: int, K: float) -> float:
    """log Z of the uniform periodic square lattice, for any size.

    Z = (2 sinh 2K)^{n^2/2} / 2 * [prod 2cosh(n g_{2r+1}/2) + prod 2sinh(n g_{2r+1}/2) + prod 2cosh(n g_{2r}/2)
    + prod 2sinh(n g_{2r}/2)], r = 0..n-1, cosh g_l = cosh^2 2K / sinh 2K - cos(pi l/n), g_0 = 2K + ln tanh K.

    Source: B. Kaufman, Crystal Statistics. II. Partition Function Evaluated by Spinor Analysis, 1949.

    Arguments:
        side: Sites along one side n, at least 3.
        K: Coupling of an edge (2 sigma). Negative values are admitted on even sides only, where flipping every
            second spin turns them into -K.

    Returns:
        log Z in nats.

    Raises:
        ValueError: A side below 3, or K < 0 on an odd side, which is frustrated and has no such formula.
    """
    if side < 3:
        raise ValueError(f"Kaufman's formula is used for sides of at least 3, not {side}")
    if K < 0 and side % 2:
        raise ValueError(f"Kaufman's formula needs K > 0 on the odd side {side}: use the transfer matrix")
    K = abs(K)
    if K == 0:
        return side * side * math.log(2.0)
    level = np.arange(2 * side)
    gamma = np.arccosh(np.maximum(math.cosh(2 * K) ** 2 / math.sinh(2 * K) - np.cos(math.pi * level / side), 1.0))
    gamma[0] = 2 * K + math.log(math.tanh(K))  # signed: below the critical K it is negative
    half = side * gamma / 2
    log_cosh = np.logaddexp(half, -half)
    with np.errstate(divide="ignore"):  # at the critical point g_0 = 0 and the last product vanishes
        log_sinh = np.abs(half) + np.log(-np.expm1(-2 * np.abs(half)))
    odd, even = level % 2 == 1, level % 2 == 0
    logs = np.array([log_cosh[odd].sum(), log_sinh[odd].sum(), log_cosh[even].sum(), log_sinh[even].sum()])
    signs = np.array([1.0, 1.0, 1.0, np.sign(gamma[0])])
    peak = logs.max()
    bracket = float(peak + np.log((signs * np.exp(logs - peak)).sum()))
    return side * side / 2 * math.log(2 * math.sinh(2 * K)) - math.log(2.0) + bracket
