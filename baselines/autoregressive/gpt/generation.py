"""Generation by a GPT, with cached keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from ..generation import generated
from ..vocabulary import Choose
from .network import GPTNetwork


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

    def logits(new: Tensor, rows: Tensor) -> Tensor:
        hidden = network.hidden(new, past=past, added=None if added is None else added[rows])
        return network.logits(hidden[:, -1])

    return generated(prompt, num_tokens, choose, logits, past.keep, end=end)
