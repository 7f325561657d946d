"""Named random streams: every use of randomness has its own generator, derived from the run's seed by hash.

Adding a metric or a stage therefore moves no other number, and nothing in the library seeds a global generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*names: str | int) -> int:
    """A 63-bit seed from a path of names, the same on every machine.

    Example:
        >>> derive_seed("train", 0) == derive_seed("train", 0) != derive_seed("train", 1)
        True
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device` for the stream that `names` spell."""
    import torch

    return torch.Generator(device).manual_seed(derive_seed(*names))
