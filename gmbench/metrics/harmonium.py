"""log Z and log-likelihoods of restricted Boltzmann machines: by enumeration, by AIS, and by RAISE."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gmbench.model import Harmonium

MAX_BITS = 20


@torch.no_grad()
def log_density(harmonium: Harmonium, v: Tensor) -> Tensor:
    """log of the unnormalised marginal of v (B, V): minus the free energy, (B,), in the precision of v."""
    W, b, c = (part.to(v) for part in harmonium)
    return v @ b + softplus(c + v @ W).sum(-1)


@torch.no_grad()
def exact_log_partition(harmonium: Harmonium) -> Tensor:
    """log Z, a float64 scalar, by summing over the states of the smaller layer.

    Raises:
        ValueError: Both layers have more than 20 bits.
    """
    W, b, c = (part.double() for part in harmonium)
    if W.shape[0] < W.shape[1]:
        W, b, c = W.T, c, b
    num_bits = W.shape[1]
    if num_bits > MAX_BITS:
        raise ValueError(f"an exact log Z sums over 2^{num_bits} states; at most {MAX_BITS} bits")
    powers = 2 ** torch.arange(num_bits, device=W.device)
    parts: list[Tensor] = []
    for begin in range(0, 2**num_bits, 2**12):
        states = torch.arange(begin, min(begin + 2**12, 2**num_bits), device=W.device)
        h = (states[:, None] // powers % 2).double()
        parts.append(torch.logsumexp(h @ c + softplus(b + h @ W.T).sum(1), 0))
    return torch.logsumexp(torch.stack(parts), 0)
