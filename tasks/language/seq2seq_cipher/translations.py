"""How good translations are as text: the share that is right in every word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gmbench.estimate import Estimate


def exact_match(translations: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Estimate:
    """The share of sentences that equal their reference."""
    same = torch.tensor([a == b for a, b in zip(translations, references, strict=True)]).double()
    return Estimate(value=float(same.mean()), stderr=float(same.std()) / math.sqrt(len(same)), n=len(same))
