"""Discrete Langevin proposals: every bit may flip in one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from gmbench.samplers.informed import InformedKernel
from gmbench.samplers.metropolis import Rule
from gmbench.samplers.noise import uniforms


@dataclass(frozen=True)
class DMALA(InformedKernel):
    """Flips each bit on its own with log odds d_i(x) / 2 - 1 / (2 step_size), then accepts the whole by `rule`.

    Here d(x) = -(2x - 1) * grad log f(x), and squared distances are those of {0, 1} states: the same kernel written for
    spins in {-1, +1} has a step size four times as large.

    Arguments:
        step_size: Positive. Small steps flip few bits and are accepted often.
        mh: Accept or reject (DMALA). Without it (DULA) every proposal is taken, and the stationary law is only near the
            target's, the nearer the smaller the step.
        rule: How proposals are accepted.

    Source: R. Zhang, X. Liu, Q. Liu, "A Langevin-like sampler for discrete distributions", 2022, arXiv 2206.09914.
    """

    step_size: float
    mh: bool = True
    rule: Rule = "metropolis"
    exact = False

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"step_size is positive, not {self.step_size}")

    def flip_logits(self, delta: Tensor) -> Tensor:
        """Log odds that each bit flips, (B, D)."""
        return delta / 2 - 1 / (2 * self.step_size)

    def propose(self, x: Tensor, delta: Tensor, *, rng: Generator) -> Tensor:
        """x with any number of bits flipped, (B, D)."""
        flip = uniforms((x.shape[0], x.shape[1]), x, rng) < self.flip_logits(delta).sigmoid()
        return (x - flip.to(x.dtype)).abs()

    def log_proposal(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """Sum of the log-probabilities of flipping, or not, each bit, (B,)."""
        sign = 2 * (x - y).abs() - 1  # +1 where the bit flips
        return logsigmoid(sign * self.flip_logits(delta)).sum(1)
