"""Uniform noise from an explicit generator, whichever device the generator lives on."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def uniforms(shape: tuple[int, ...], like: Tensor, rng: Generator) -> Tensor:
    """Independent draws from U[0, 1) of the given shape, with the dtype and on the device of `like`."""
    return torch.rand(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)
