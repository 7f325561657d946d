"""Which tokens a masked language model must predict, and what it is shown in their place."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ...tokens import PAD

SHOWN_AS_MASK = 0.8
SHOWN_AS_ANOTHER = 0.1  # a random token; otherwise the token itself


def masked(x: Tensor, *, share: float, vocab_size: int, mask: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Sequences x (B, T) with tokens hidden, and which of them are to be predicted, (B, T) bool.

    Each token, the end among them, is chosen with probability `share`, and of each row at least one: a short sequence
    would teach nothing most of the time. A chosen one is shown as the mask (80 %), as any token (10 %), or as it is.

    Arguments:
        share: 15 % in the paper.
        vocab_size: V; a random token is one of 1 … V - 1.
        mask: The id that hides a token.

    Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for
    Language Understanding", 2018, arXiv 1810.04805, section 3.1.
    """
    device, real = rng.device, x != PAD
    u, v = torch.rand(2, *x.shape, generator=rng, device=device).to(x.device)
    u = u.masked_fill(~real, 2.0)
    chosen = u < share
    chosen.scatter_(1, u.argmin(1, keepdim=True), True)
    chosen &= real
    another = torch.randint(1, vocab_size, x.shape, generator=rng, device=device).to(x.device)
    shown = torch.where(chosen & (v < SHOWN_AS_MASK), mask, x)
    replaced = chosen & (v >= SHOWN_AS_MASK) & (v < SHOWN_AS_MASK + SHOWN_AS_ANOTHER)
    return torch.where(replaced, another, shown), chosen
