"""Generation with cached keys and values, in batches which sequences leave once they have ended."""

from __future__ import annotations

import torch
from torch import Tensor

from ...tokens import PAD
from ..vocabulary import Choose
from .network import GPTNetwork

SHARE = 0.75  # rows are moved together once no more than that share of them still grows


@torch.no_grad()
def generate(
    network: GPTNetwork,
    prompt: Tensor,
    num_tokens: int,
    choose: Choose,
    *,
    end: int | None,
    memory: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """What follows the prompts, (B, num_tokens), padded behind the end of each row.

    Every position is computed once: its keys and values stay in a cache for those that follow.

    Arguments:
        choose: Which token comes next; `vocabulary.by_quantiles` draws it.
        prompt: What is read first, the start included, (B, P); P + num_tokens - 1 positions are read in all.
        end: The token after which a row does not grow, or None if all have `num_tokens`.
        memory: As of `GPTNetwork.hidden`, (L, B, M, 2, H, d / H).
        added: As of `GPTNetwork.hidden`, (B, d).
    """
    past = network.cache(len(prompt), prompt.shape[1] + num_tokens - 1, memory)
    x = prompt.new_full((len(prompt), num_tokens), PAD)
    rows = torch.arange(len(prompt), device=prompt.device)  # those in the cache
    grows = torch.ones_like(rows, dtype=torch.bool)
    new = prompt
    for t in range(num_tokens):
        hidden = network.hidden(new, past=past, added=None if added is None else added[rows])
        tokens = choose(t, network.logits(hidden[:, -1]), rows)
        x[rows[grows], t] = tokens[grows]
        if end is not None:
            grows &= tokens != end
            num = int(grows.sum())
            if not num:
                break
            if num <= SHARE * len(rows):
                kept = grows.nonzero()[:, 0]
                past.keep(kept)
                rows, tokens, grows = rows[kept], tokens[kept], grows[kept]
        new = tokens[:, None]
    return x
