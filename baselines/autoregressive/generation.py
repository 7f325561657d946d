"""Token after token, in batches which sequences leave once they have ended."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..tokens import PAD
from .vocabulary import Choose

SHARE = 0.75  # rows are moved together once no more than that share of them still grows

Logits = Callable[[Tensor, Tensor], Tensor]
"""`logits(new, rows)`: logits (b, V - 1) of what follows the tokens new (b, t), which come next in the rows (b,)."""
Keep = Callable[[Tensor], None]
"""`keep(rows)`: of what is remembered of the present rows only that of the rows (b',) is needed from now on."""


@torch.no_grad()
def generated(
    prompt: Tensor, num_tokens: int, choose: Choose, logits: Logits, keep: Keep, *, end: int | None
) -> Tensor:
    """What follows the prompts, (B, num_tokens), padded behind the end of each row.

    Every position is read once; what earlier ones were is for `logits` to remember.

    Arguments:
        prompt: What is read first, the start included, (B, P).
        choose: Which token comes next; `vocabulary.by_quantiles` draws it.
        end: The token after which a row does not grow, or None if all have `num_tokens`.
    """
    x = prompt.new_full((len(prompt), num_tokens), PAD)
    rows = torch.arange(len(prompt), device=prompt.device)  # those that are remembered
    grows = torch.ones_like(rows, dtype=torch.bool)
    new = prompt
    for t in range(num_tokens):
        tokens = choose(t, logits(new, rows), rows)
        x[rows[grows], t] = tokens[grows]
        if end is not None:
            grows &= tokens != end
            num = int(grows.sum())
            if not num:
                break
            if num <= SHARE * len(rows):
                kept = grows.nonzero()[:, 0]
                keep(kept)
                rows, tokens, grows = rows[kept], tokens[kept], grows[kept]
        new = tokens[:, None]
    return x
