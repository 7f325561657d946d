"""Sentences of tiny languages for tests, and models of them that are far from uniform."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from building import rng
from gmbench.baselines.tokens import finished
from gmbench.spaces import TokenSequence


def every_sentence(space: TokenSequence) -> Tensor:
    """All sequences of a tiny space that end, (N, T)."""
    rows = [
        [*words, space.EOS] + [0] * (space.max_length - 1 - num)
        for num in range(space.max_length)
        for words in itertools.product(range(2, space.vocab_size), repeat=num)
    ]
    return torch.tensor(rows)


def every_sequence(space: TokenSequence) -> Tensor:
    """All sequences of a tiny space, ended or cut off at its length, (N, T)."""
    cut = torch.tensor(list(itertools.product(range(2, space.vocab_size), repeat=space.max_length)))
    return torch.cat([every_sentence(space), cut])


def ragged(num: int, space: TokenSequence, seed: int = 0) -> Tensor:
    """Random sentences of all lengths in turn, (num, T)."""
    x = torch.randint(2, space.vocab_size, (num, space.max_length), generator=rng(seed))
    x[torch.arange(num), torch.arange(num) % space.max_length] = space.EOS
    return finished(x)


def sharpened(model: Any, std: float = 0.3) -> Any:
    """The model with large random weights, far from uniform, which are also those that it keeps."""
    generator = rng(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            nn.init.normal_(parameter, std=std, generator=generator)
    model.best.network.load_state_dict(model.network.state_dict())
    return model
