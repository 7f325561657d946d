"""The few statistics that ranking needs, in plain Python, since showing a leaderboard imports no scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; infinite where a value is."""
    return math.inf if math.inf in values else math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Unbiased variance of at least two finite values."""
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def two_sided_t(t: float, df: int) -> float:
    """P(|T| > |t|) of Student's t with integer degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    if math.isinf(t):
        return 0.0
    theta = math.atan2(abs(t), math.sqrt(df))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = df % 2
    term = total = math.cos(theta) if odd else 1.0
    if df == 1:
        total = 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= square * (k - 1) / k
        total += term
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return min(1.0, max(0.0, 1.0 - inside))


Part = tuple[float, int]
"""A variance of a mean, and the degrees of freedom with which it is known."""


def half_width(parts: Sequence[Part], p: float = 0.05) -> float:
    """Half of an interval for a mean whose variance is a sum of estimated ones: √Σ t² v, each with its own t.

    With normal noise and independent parts it holds the mean with at least probability 1 - p, whatever their sizes and
    degrees of freedom are (S. Banerjee, Approximate Confidence Interval for Linear Functions of Means of k
    Populations, Sankhyā 22, 1960). One t of the fewest degrees of freedom
    for all of them would make a few seeds out of thousands of test points.
    """
    return math.sqrt(math.fsum(t_above(p, df) ** 2 * variance for variance, df in parts if variance > 0))


def p_value(difference: float, parts: Sequence[Part]) -> float:
    """The p at which the interval of `half_width` just reaches from the difference to 0."""
    known = [(variance, df) for variance, df in parts if variance > 0]
    if difference == 0 or not known:
        return float(difference == 0)
    total = math.sqrt(math.fsum(variance for variance, _ in known))
    # between the p-values of one t of the most and of the fewest degrees of freedom
    tails = [two_sided_t(difference / total, min(df, _LARGE)) for _, df in known]
    low, high = math.log(max(min(tails) * 0.5, 1e-300)), math.log(max(max(tails), 1e-300))
    for _ in range(60):
        if high - low < 1e-7:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if half_width(known, math.exp(middle)) > abs(difference) else (low, middle)
    return math.exp(high)


_LARGE = 200  # degrees of freedom beyond which t is little larger than the normal's: at p = .05 by 1 %


@lru_cache(maxsize=1 << 16)
def t_above(p: float, df: int) -> float:
    """The t with P(|T| > t) = p: in closed form of the degrees that a few seeds have, otherwise by bisection."""
    df = min(df, _LARGE)
    if df == 1:
        return 1 / math.tan(math.pi * p / 2)
    if df == 2:
        return (1 - p) * math.sqrt(2 / (p * (2 - p)))
    if df == 4:
        root = math.sqrt(p * (2 - p))
        return 2 * math.sqrt(max(0.0, math.cos(math.acos(min(1.0, root)) / 3) / root - 1))
    low, high = 0.0, 1.0
    while two_sided_t(high, df) > p:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_t(middle, df) > p else (low, middle)
    return high


def holm_with_the_best(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of m comparisons with a best row that was chosen by the very values that are compared.

    Reject where they are at most the level, as in S. Holm, A Simple Sequentially Rejective Multiple Test Procedure,
    1979. His factors m, m - 1, … hold for a best that was fixed beforehand. The best of m + 1 equal rows lies at their
    edge: with those factors some row is separated from it in 8 % of cases with five equal rows and in 12 % with twelve,
    not in 5 %. So every step counts the pairs that the remaining rows could have made, (m + 1) m / 2, m (m - 1) / 2, …
    Where t rows are equally good and one of them is chosen, the first other one to be rejected is so while at least
    t rows remain, hence at level / (t (t - 1) / 2), and their t (t - 1) / 2 pairs together err at most at the level.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for m, i in zip(range(len(order), 0, -1), order, strict=True):
        running = max(running, m * (m + 1) // 2 * p_values[i])
        adjusted[i] = min(1.0, running)
    return adjusted
