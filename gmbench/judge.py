"""The judge contract: a trained thing that a metric needs, with weights of a known digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, Self, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from gmbench.errors import UserError, nearest
from gmbench.plugin import JudgeCard
from gmbench.registry import Plugin, Registry, discover
from gmbench.spaces import Space


class Judge(nn.Module):
    """A trained network that gives points features; frozen, deterministic, in evaluation mode.

    A subclass builds itself in `from_weights` from the tensors of a file, and sets `space` and `num_features`.
    """

    space: Space
    """What its points are."""
    num_features: int
    """F."""
    key: str = ""
    """`<name>@<first 12 hex digits of its weights' SHA-256>`: what a metric's key says of the judge."""

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> Self:
        """The network that these tensors describe, without drawing from a global generator.

        Raises:
            ValueError, KeyError or RuntimeError: They are not its tensors.
        """
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Features (B, F) of points (B, ...) of its space, with mean 0 and standard deviation 1 on its training set.

        Any number of points: a judge works in blocks where its memory would grow.
        """
        raise NotImplementedError


@runtime_checkable
class Classifies(Protocol):
    """A judge that knows classes."""

    num_classes: int

    def logits(self, x: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, C) of the classes of points (B, ...)."""


def load_judge(name: str, *, weights: str, registry: Registry | None = None) -> Judge:
    """The judge of that name with the weights of that name, after their checksum; this executes the judge's code.

    Arguments:
        name: Of a judge that discovery finds, or the path of its folder.
        weights: One of the names in its card.

    Raises:
        UserError: There is no such judge or no such weights, or the file is missing, damaged or no fit.
    """
    return judge_of((registry or discover()).judge(name), weights)


def judge_of(plugin: Plugin, weights: str) -> Judge:
    """As `load_judge`, of a plugin that was found."""
    card = plugin.card
    assert isinstance(card, JudgeCard)
    if weights not in card.weights:
        raise UserError(f"judge {card.name} has no weights {weights!r}: {nearest(weights, card.weights)}")
    path, expected = plugin.folder / card.weights[weights].file, card.weights[weights].sha256
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"judge {card.name}: {path} cannot be read: {error.strerror}") from None
    # What is loaded are the bytes that were checked.
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise UserError(f"{path} is damaged: SHA-256 {found[:12]}… where the card of {card.name} has {expected[:12]}…")
    loaded = plugin.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Judge)):
        raise UserError(f"judge {card.name}: {card.entry} is not a subclass of gmbench.judge.Judge")
    try:
        judge = loaded.from_weights(load(content))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} holds no weights of {card.name}: {type(error).__name__}: {reason}") from None
    judge.key = f"{card.name}@{expected[:12]}"
    return judge.eval().requires_grad_(False)
