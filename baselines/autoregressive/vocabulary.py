"""From features to tokens: log-probabilities without the matrix of all tokens' logits, and draws.

The ids that have a probability are 1 … V - 1: PAD, id 0, has none, so no model can spend any on it. The weights
(V - 1, d) and logits (..., V - 1) here leave it out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

Choose = Callable[[int, Tensor, Tensor], Tensor]
"""`choose(t, logits, rows)`: tokens (b,) that come t-th, of logits (b, V - 1) for ids 1 … V - 1, of the rows (b,)."""

ROWS = 128  # features of one block: 128 x 10 000 logits are 5 MB


def total_nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """Minus the sum of log p of tokens (N,) under logits (N, V - 1), a scalar in nats."""
    return cross_entropy(logits, tokens - 1, reduction="sum")


@torch.no_grad()
def token_log_probs(states: Tensor, weight: Tensor, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
    """log p in nats (N,) of tokens (N,) under the logits states (N, d) weight' + bias, a block of rows at a time.

    The logits of a block are overwritten by their exponentials, so that it stays in the cache.
    """
    found = states.new_empty(len(states))
    transposed = weight.T
    for begin in range(0, len(states), ROWS):
        block = states[begin : begin + ROWS]
        logits = block @ transposed if bias is None else torch.addmm(bias, block, transposed)
        chosen = logits.gather(1, tokens[begin : begin + ROWS, None] - 1)[:, 0]
        greatest = logits.amax(1)
        total = logits.sub_(greatest[:, None]).exp_().sum(1)
        found[begin : begin + ROWS] = chosen - greatest - total.log()
    return found


def by_quantiles(num: int, rng: Generator) -> Choose:
    """Draws every token of `num` rows by one uniform number, whether the row still grows or not.

    What a row becomes therefore does not depend on when others have ended.
    """

    def choose(t: int, logits: Tensor, rows: Tensor) -> Tensor:
        u = torch.rand(num, generator=rng, device=rng.device).to(logits)
        return draw(logits, u[rows])

    return choose


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """Tokens (B,) of logits (B, V - 1): those at the quantiles u (B,), in [0, 1)."""
    cumulated = logits.softmax(1).cumsum(1)
    found = torch.searchsorted(cumulated, (u * cumulated[:, -1])[:, None], right=True)[:, 0]
    return found.clamp(max=logits.shape[1] - 1) + 1
