"""The few statistics that ranking needs, in plain Python, since showing a leaderboard imports no scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def t_quantile(confidence: float, df: int) -> float:
    """The t with P(|T| <= t) = confidence, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_t(middle, df) > 1 - confidence else (low, middle)
    return high


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where they are at most the level (S. Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for position, i in enumerate(order):
        running = max(running, (len(p_values) - position) * p_values[i])
        adjusted[i] = min(1.0, running)
    return adjusted
