"""What every metric asks of its input, each refusal one clear line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_shape(name: str, x: Tensor, shape: Sequence[str | int]) -> None:
    """Raises ValueError unless `x` has this shape and holds something.

    Arguments:
        name: What to call the tensor in the message.
        x: The tensor.
        shape: One entry per axis: a letter for any size, a number for exactly that size.
    """
    fits = x.ndim == len(shape) and all(isinstance(s, str) or n == s for n, s in zip(x.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join(str(s) for s in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} must have shape ({wanted}), not {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")


def check_finite(name: str, x: Tensor) -> None:
    """Raises ValueError if `x` holds NaN or an infinity."""
    if not bool(torch.isfinite(x).all()):
        num_bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{name} must be finite, but {num_bad} of {x.numel()} entries are NaN or infinite")


def check_log_values(name: str, x: Tensor) -> None:
    """Raises ValueError if `x` holds NaN or +inf; -inf, the log of a zero, is allowed."""
    bad = torch.isnan(x) | (x == math.inf)
    if bool(bad.any()):
        raise ValueError(f"{name} must be finite or -inf, but {int(bad.sum())} of {x.numel()} entries are NaN or +inf")


def check_binary(name: str, x: Tensor) -> None:
    """Raises ValueError unless every entry of `x` is 0 or 1."""
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(f"{name} must hold only 0 and 1 (spins s are bits (s + 1) / 2)")


def check_probs(name: str, p: Tensor) -> None:
    """Raises ValueError unless `p` is a (C,) probability vector (sum within 1e-4 of 1)."""
    check_shape(name, p, ("C",))
    check_finite(name, p)
    total = float(p.sum(dtype=torch.float64))
    if bool((p < 0).any()) or abs(total - 1) > 1e-4:
        raise ValueError(f"{name} must be probabilities that sum to 1; the least is {float(p.min())}, the sum {total}")


def check_count(name: str, n: int, *, least: int = 1) -> None:
    """Raises ValueError unless `n` is at least `least`."""
    if n < least:
        raise ValueError(f"{name} must be at least {least}, not {n}")
