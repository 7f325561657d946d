"""Pseudo-log-likelihoods of a masked transformers model: each token given all others, one of them masked at a time.

Source: J. Salazar, D. Liang, T. Nguyen and K. Kirchhoff, "Masked Language Model Scoring", 2020, arXiv 1910.14659.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_LOGITS = 2**24  # at a time: 64 MB of float32


@torch.inference_mode()
def pseudo_log_prob(network: Any, sequences: Sequence[Sequence[int]], *, mask: int) -> Tensor:
    """Sum over t of log p(x_t | all other tokens) of every token but the first, in nats, (N,), float64, on the CPU.

    Arguments:
        network: A masked transformers model.
        sequences: Token ids with the marks that the model reads at the beginning and the end.
        mask: The id that stands for a masked token.
    """
    device, found = next(network.parameters()).device, torch.zeros(len(sequences), dtype=torch.float64)
    vocab_size = network.config.get_text_config().vocab_size
    # every text as often as it has tokens, the longest first
    rows = [(number, place) for number, one in enumerate(sequences) for place in range(1, len(one))]
    rows.sort(key=lambda row: -len(sequences[row[0]]))
    begin = 0
    while begin < len(rows):
        width = len(sequences[rows[begin][0]])
        chunk = rows[begin : begin + max(1, MAX_LOGITS // (width * vocab_size))]
        begin += len(chunk)
        x = torch.tensor([[*sequences[n], *[mask] * (width - len(sequences[n]))] for n, _ in chunk])
        seen = torch.arange(width) < torch.tensor([len(sequences[n]) for n, _ in chunk])[:, None]
        at = torch.arange(len(chunk)), torch.tensor([place for _, place in chunk])
        targets = x[at].clone()
        x[at] = mask
        logits = network(input_ids=x.to(device), attention_mask=seen.long().to(device)).logits[at]
        log_p = logits.double().log_softmax(1).gather(1, targets[:, None].to(device))[:, 0]
        found.index_add_(0, torch.tensor([number for number, _ in chunk]), log_p.cpu())
    return found
