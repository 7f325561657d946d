"""Running a kernel for many steps, with an optional record of a statistic along the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gmbench.samplers.kernel import CarryingKernel, Kernel
from gmbench.samplers.target import Target


class ChainRun(NamedTuple):
    """The outcome of `run_chain`.

    Arguments:
        x: The final states, (num_chains, D).
        accept_rate: Mean over chains and steps; scalar.
        num_evaluations: Energy evaluations per chain, counted as in `Transition`.
        series: The recorded statistic after each step, (num_chains, num_steps); None without `record`.
    """

    x: Tensor
    accept_rate: Tensor
    num_evaluations: int
    series: Tensor | None


def run_chain(
    kernel: Kernel,
    target: Target,
    x0: Tensor,
    num_steps: int,
    *,
    rng: Generator,
    record: Callable[[Tensor], Tensor] | None = None,
) -> ChainRun:
    """Applies `kernel` to the chains `num_steps` times.

    Arguments:
        kernel: Any kernel; one that carries its evaluations from step to step is let do so.
        target: The distribution to sample.
        x0: Initial states, (num_chains, D), left as they are.
        num_steps: At least 0.
        rng: The source of all randomness.
        record: A statistic of the states, (num_chains, D) -> (num_chains,), taken after every step.
    """
    series: list[Tensor] = []

    def note(x: Tensor) -> None:
        if record is not None:
            series.append(record(x))

    if num_steps == 0:
        empty = x0.new_empty((len(x0), 0)) if record is not None else None
        return ChainRun(x0, x0.new_ones(()), 0, empty)
    if isinstance(kernel, CarryingKernel):
        x, accept_rate, num_evaluations = kernel.steps(x0, target, num_steps, rng=rng, record=note)
    else:
        x, accept_rate, num_evaluations = x0, x0.new_zeros(()), 0
        for _ in range(num_steps):
            x, rate, count = kernel.step(x, target, rng=rng)
            accept_rate = accept_rate + rate / num_steps
            num_evaluations += count
            note(x)
    return ChainRun(x, accept_rate, num_evaluations, torch.stack(series, dim=1) if record is not None else None)
