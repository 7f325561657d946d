"""Accepting or rejecting a proposal so that detailed balance holds: the rules of Metropolis and of Barker."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from gmbench.samplers.noise import uniforms

Rule = Literal["metropolis", "barker"]


def acceptance_probability(log_ratio: Tensor, rule: Rule = "metropolis") -> Tensor:
    """Probability of accepting a proposal y from x.

    Arguments:
        log_ratio: log f(y) q(x | y) - log f(x) q(y | x), any shape, in nats.
        rule: `metropolis`, min(1, r), which no other rule beats in asymptotic variance; or `barker`, r / (1 + r).

    Sources: N. Metropolis et al., "Equation of state calculations by fast computing machines", 1953; A. A. Barker,
    "Monte Carlo calculations of the radial distribution functions for a proton-electron plasma", 1965; P. H. Peskun,
    "Optimum Monte-Carlo sampling using Markov chains", 1973.
    """
    if rule == "metropolis":
        return log_ratio.clamp(max=0).exp()
    if rule == "barker":
        return torch.sigmoid(log_ratio)
    raise ValueError(f"unknown acceptance rule {rule!r}; one of {', '.join(get_args(Rule))}")


def accept(log_ratio: Tensor, rule: Rule = "metropolis", *, rng: Generator) -> Tensor:
    """Which proposals are accepted: bool, with the shape of `log_ratio`. A NaN ratio is never accepted."""
    probability = acceptance_probability(log_ratio, rule)
    return uniforms(tuple(log_ratio.shape), log_ratio, rng) < probability
