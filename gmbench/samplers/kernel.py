"""The contract of a Markov kernel on binary vectors and what one application of it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Generator, Tensor

from gmbench.samplers.target import Target


class Transition(NamedTuple):
    """The outcome of one or several steps of a kernel.

    Arguments:
        x: The new states, (B, D).
        accept_rate: Share of proposals accepted, mean over chains and steps; scalar. Gibbs updates accept always.
        num_evaluations: Energy evaluations per chain. A gradient counts 2 (forward and backward), the exact difference
            of one flip 1, and of all flips D, however cheaply a target computes them.
    """

    x: Tensor
    accept_rate: Tensor
    num_evaluations: int


class Kernel(Protocol):
    """A Markov kernel that acts on many independent chains at once."""

    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        """One application to x (B, D); `x` itself is left as it is."""
        ...


@runtime_checkable
class CarryingKernel(Kernel, Protocol):
    """A kernel that carries what it knows of the current state from one step to the next."""

    def steps(
        self,
        x: Tensor,
        target: Target,
        num_steps: int,
        *,
        rng: Generator,
        record: Callable[[Tensor], None] | None = None,
    ) -> Transition:
        """Several applications; `record` sees the states (B, D) after each and must not change them."""
        ...
