"""Gibbs sampling: each bit in turn, or bits at random, drawn from its conditional given all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gmbench.samplers.kernel import Transition
from gmbench.samplers.noise import uniforms
from gmbench.samplers.target import HasGibbsSweep, Target, flipped, has_cheap_site_delta, site_delta


@dataclass(frozen=True)
class GibbsSweep:
    """One systematic sweep over the sites 0 .. D-1.

    Leaves the target invariant; being a product of reversible updates in a fixed order, it is not itself reversible.

    Source: S. Geman and D. Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images",
    1984.
    """

    @torch.no_grad()
    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        """One sweep of x (B, D): D evaluations per chain, and one more where the target offers no differences."""
        num_chains, dim = x.shape
        u = uniforms((dim, num_chains), x, rng)
        if isinstance(target, HasGibbsSweep):
            return Transition(target.gibbs_sweep(x, u), x.new_ones(()), dim)
        return update_sites(x, target, list(range(dim)), u)


@dataclass(frozen=True)
class RandomScanGibbs:
    """Single-site updates at uniformly random sites, drawn for each chain on its own.

    Arguments:
        num_sites: How many updates one step makes, at least 1.

    One update is reversible with respect to the target, and so is a step, a power of it.
    """

    num_sites: int

    def __post_init__(self) -> None:
        if self.num_sites < 1:
            raise ValueError(f"num_sites is at least 1, not {self.num_sites}")

    @torch.no_grad()
    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        """`num_sites` updates of x (B, D): as many evaluations per chain, and one more without differences."""
        num_chains, dim = x.shape
        shape = (self.num_sites, num_chains)
        sites = torch.randint(dim, shape, generator=rng, device=rng.device).to(x.device)
        return update_sites(x, target, list(sites), uniforms(shape, x, rng))


def conditional_logit(x_i: Tensor, delta: Tensor) -> Tensor:
    """Log odds of x_i = 1 given the rest, (B,), from the present bit and log f(flipped) - log f(present)."""
    return torch.where(x_i > 0.5, -delta, delta)


def update_sites(x: Tensor, target: Target, sites: Sequence[int | Tensor], u: Tensor) -> Transition:
    """Draws the given sites one after the other from their conditionals.

    Arguments:
        x: States (B, D).
        target: The distribution.
        sites: Each one site for all chains, or one site per chain, int64 (B,).
        u: Uniform draws, (len(sites), B): the bit becomes 1 where logit(u) is below the conditional logit.
    """
    x = x.clone()
    thresholds = torch.logit(u)
    rows = torch.arange(len(x), device=x.device)
    carried = None if has_cheap_site_delta(target) else target.log_prob(x)  # log f of the current states
    for site, threshold in zip(sites, thresholds, strict=True):
        x_i = x[rows, site]
        if carried is None:
            x[rows, site] = (conditional_logit(x_i, site_delta(target, x, site)) > threshold).to(x.dtype)
            continue
        proposed = target.log_prob(flipped(x, site))
        bit = (conditional_logit(x_i, proposed - carried) > threshold).to(x.dtype)
        carried = torch.where(bit == x_i, carried, proposed)
        x[rows, site] = bit
    return Transition(x, x.new_ones(()), len(sites) + (carried is not None))
