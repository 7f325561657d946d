"""What the locally informed kernels share: a proposal from the effect of every flip, then accepted or rejected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gmbench.samplers.kernel import Transition
from gmbench.samplers.metropolis import Rule, accept
from gmbench.samplers.target import Target, flip_delta, log_prob_and_grad


class Local(NamedTuple):
    """What is known of the states of the chains.

    Arguments:
        log_prob: log f(x), (B,).
        delta: log f(x with bit i flipped) - log f(x), exact or to first order, (B, D).
    """

    log_prob: Tensor
    delta: Tensor


class InformedKernel(ABC):
    """Metropolis-Hastings with a proposal q(y | x) that depends on x and on `Local.delta`.

    A kernel states how it draws y and what log q(y | x) is; the steps and the exact transition matrix use these two.
    """

    rule: Rule
    exact: bool
    mh: bool

    @abstractmethod
    def propose(self, x: Tensor, delta: Tensor, *, rng: Generator) -> Tensor:
        """A proposal for every chain, (B, D)."""

    @abstractmethod
    def log_proposal(self, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """log q(y | x), (B,), with `delta` (B, D) taken at x; minus infinity where y cannot be proposed."""

    def look(self, x: Tensor, target: Target) -> Local:
        """Evaluates the target at x (B, D)."""
        if self.exact:
            with torch.no_grad():
                return Local(target.log_prob(x), flip_delta(target, x))
        value, grad = log_prob_and_grad(target, x)
        return Local(value, (1 - 2 * x) * grad)

    def log_ratio(self, x: Tensor, y: Tensor, here: Local, there: Local) -> Tensor:
        """log f(y) q(x | y) - log f(x) q(y | x), (B,)."""
        forward = self.log_proposal(x, y, here.delta)
        backward = self.log_proposal(y, x, there.delta)
        return there.log_prob - here.log_prob + backward - forward

    def step(self, x: Tensor, target: Target, *, rng: Generator) -> Transition:
        """One proposal and its acceptance, from x (B, D)."""
        return self.steps(x, target, 1, rng=rng)

    @torch.no_grad()
    def steps(
        self,
        x: Tensor,
        target: Target,
        num_steps: int,
        *,
        rng: Generator,
        record: Callable[[Tensor], None] | None = None,
    ) -> Transition:
        """Several steps: one look at the target a step, and one more at the start if proposals may be rejected."""
        accepted = x.new_zeros(())
        looks = 0
        here: Local | None = None
        for _ in range(num_steps):
            if here is None:
                here = self.look(x, target)
                looks += 1
            y = self.propose(x, here.delta, rng=rng)
            if self.mh:
                there = self.look(y, target)
                looks += 1
                yes = accept(self.log_ratio(x, y, here, there), self.rule, rng=rng)
                x = torch.where(yes[:, None], y, x)
                here = Local(
                    torch.where(yes, there.log_prob, here.log_prob), torch.where(yes[:, None], there.delta, here.delta)
                )
                accepted = accepted + yes.to(x.dtype).mean()
            else:
                x, here = y, None
                accepted = accepted + 1
            if record is not None:
                record(x)
        per_look = x.shape[1] + 1 if self.exact else 2
        return Transition(x, accepted / max(1, num_steps), looks * per_look)
