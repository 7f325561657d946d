"""What models of token sequences share: batches without needless padding, and inputs that begin with a start."""

from __future__ import annotations

import torch
from torch import Tensor

from gmbench.errors import MissingCapability

PAD, EOS = 0, 1  # as in gmbench.spaces.TokenSequence


def require_no_condition(given: object) -> None:
    """MissingCapability if sequences of a condition are asked of a model that has learned p(x) alone."""
    if given is not None:
        raise MissingCapability("this model draws from p(x) alone, and a condition is given")


def trimmed(x: Tensor) -> Tensor:
    """x (B, T) without the last columns that are padding in every row, (B, T'), T' at least 1."""
    used = int((x != PAD).any(0).nonzero()[-1]) + 1 if bool((x != PAD).any()) else 1
    return x[:, :used]


def padded(values: Tensor, length: int) -> Tensor:
    """values (B, T', ...) with zeros behind, (B, length, ...)."""
    missing = length - values.shape[1]
    if missing <= 0:
        return values
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)


def shifted(x: Tensor) -> Tensor:
    """What an autoregressive model reads to predict x (B, T): a start (PAD's id, which nothing else has), then x_<t."""
    return torch.cat([torch.full_like(x[:, :1], PAD), x[:, :-1]], 1)


def finished(x: Tensor) -> Tensor:
    """Generated tokens x (B, T) as sequences: what follows the first EOS is padding; one without gets it at its end."""
    x = x.clone()
    x[~(x == EOS).any(1), -1] = EOS
    x[((x == EOS).cumsum(1) - (x == EOS).long()) > 0] = PAD
    return x
