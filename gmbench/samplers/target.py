"""What a sampler needs of a distribution on binary vectors: its unnormalised log density, and shortcuts if it has any.

States are float tensors (B, D) with values in {0, 1}. Only `log_prob` is required. A target may offer cheaper ways to
the same numbers (`flip_delta`, `site_delta`, `log_prob_and_grad`, `gibbs_sweep`); the functions of this module use a
shortcut where there is one and compute the quantity from `log_prob` where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

# Rows of one `log_prob` call when all D neighbours of a batch are evaluated: activations stay within a few MB.
MAX_ROWS = 16_384


class Target(Protocol):
    """A distribution on {0, 1}^D, known up to its normalising constant."""

    def log_prob(self, x: Tensor, /) -> Tensor:
        """Unnormalised log density in nats of x (B, D), shape (B,); minus the energy."""
        ...


@runtime_checkable
class HasFlipDelta(Target, Protocol):
    """A target that knows the effect of every single flip."""

    def flip_delta(self, x: Tensor, /) -> Tensor:
        """log f(x with bit i flipped) - log f(x) for every i, exact, shape (B, D)."""
        ...


@runtime_checkable
class HasSiteDelta(Target, Protocol):
    """A target that knows the effect of one flip without evaluating the whole energy."""

    def site_delta(self, x: Tensor, i: int | Tensor, /) -> Tensor:
        """log f(x with bit i flipped) - log f(x), shape (B,); `i` is one site or one site per row, int64 (B,)."""
        ...


@runtime_checkable
class HasGradient(Target, Protocol):
    """A target that knows its gradient without automatic differentiation."""

    def log_prob_and_grad(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """log f(x), shape (B,), and its gradient with respect to x, shape (B, D)."""
        ...


@runtime_checkable
class HasGibbsSweep(Target, Protocol):
    """A target that updates all sites in order faster than D separate conditionals would."""

    def gibbs_sweep(self, x: Tensor, uniforms: Tensor, /) -> Tensor:
        """The state after sites 0 .. D-1 were drawn in turn from their conditionals.

        `uniforms` is (D, B): site i of row b becomes 1 where `logit(uniforms[i, b])` is below its conditional logit.
        """
        ...


@dataclass(frozen=True)
class FunctionTarget:
    """A plain function log f: (B, D) -> (B,) as a target.

    Arguments:
        function: The unnormalised log density, in nats.

    Its `flip_delta` and `site_delta` are computed from whole evaluations: D + 1 and 2 of them. The Gibbs kernels do not
    use them, since carrying the current value along costs one evaluation per site.
    """

    function: Callable[[Tensor], Tensor]

    def log_prob(self, x: Tensor) -> Tensor:
        """The function itself, shape (B,)."""
        return self.function(x)

    def flip_delta(self, x: Tensor) -> Tensor:
        """log f(x with bit i flipped) - log f(x), shape (B, D)."""
        return _flip_delta_from_log_prob(self, x)

    def site_delta(self, x: Tensor, i: int | Tensor) -> Tensor:
        """log f(x with bit i flipped) - log f(x), shape (B,)."""
        return self.function(flipped(x, i)) - self.function(x)


def flipped(x: Tensor, i: int | Tensor) -> Tensor:
    """A copy of x (B, D) with bit i flipped; `i` is one site or one site per row, int64 (B,)."""
    y = x.clone()
    if isinstance(i, Tensor):
        rows = torch.arange(len(x), device=x.device)
        y[rows, i] = 1 - y[rows, i]
    else:
        y[:, i] = 1 - y[:, i]
    return y


def flip_delta(target: Target, x: Tensor) -> Tensor:
    """log f(x with bit i flipped) - log f(x) for every i, exact, shape (B, D)."""
    if isinstance(target, HasFlipDelta):
        return target.flip_delta(x)
    return _flip_delta_from_log_prob(target, x)


def site_delta(target: Target, x: Tensor, i: int | Tensor) -> Tensor:
    """log f(x with bit i flipped) - log f(x), shape (B,); `i` is one site or one site per row, int64 (B,)."""
    if isinstance(target, HasSiteDelta):
        return target.site_delta(x, i)
    return target.log_prob(flipped(x, i)) - target.log_prob(x)


def has_cheap_site_delta(target: Target) -> bool:
    """Whether `site_delta` is a shortcut, and not two evaluations of the energy."""
    return isinstance(target, HasSiteDelta) and not isinstance(target, FunctionTarget)


def log_prob_and_grad(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """log f(x), shape (B,), and its gradient with respect to x, shape (B, D); both detached.

    The gradient is that of the formula behind log f, continued to real x.
    """
    if isinstance(target, HasGradient):
        with torch.no_grad():
            return target.log_prob_and_grad(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = target.log_prob(x)
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


def _flip_delta_from_log_prob(target: Target, x: Tensor) -> Tensor:
    num_rows, dim = x.shape
    flips = torch.eye(dim, dtype=torch.bool, device=x.device)
    sites_per_chunk = max(1, MAX_ROWS // max(1, num_rows))
    there = [
        target.log_prob(torch.where(chunk, 1 - x[:, None], x[:, None]).reshape(-1, dim)).reshape(num_rows, -1)
        for chunk in torch.split(flips, sites_per_chunk)
    ]
    return torch.cat(there, dim=1) - target.log_prob(x)[:, None]
