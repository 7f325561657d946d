"""The checks of a judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gmbench.conformance.checks import Skipped, require
from gmbench.conformance.global_state import untouched_global_randomness
from gmbench.judge import Classifies, Judge, judge_of
from gmbench.plugin import JudgeCard
from gmbench.randomness import stream
from gmbench.record import sha256_of
from gmbench.registry import Plugin
from gmbench.spaces import KINDS, BinaryVector

NUM = 64


class JudgeUnderTest:
    """A judge, loaded once with each of its weights."""

    def __init__(self, plugin: Plugin) -> None:
        assert isinstance(plugin.card, JudgeCard)
        self.plugin, self.card = plugin, plugin.card

    @cached_property
    def loaded(self) -> dict[str, Judge]:
        return {name: judge_of(self.plugin, name) for name in self.card.weights}

    def pairs(self) -> list[tuple[str, Judge, Tensor]]:
        """Of each weights: their name, the judge with them, and random points of its space."""
        found = []
        for name, judge in self.loaded.items():
            if isinstance(judge.space, BinaryVector):
                x = torch.randint(2, (NUM, judge.space.dim), generator=stream("check", name)).float()
                found.append((name, judge, x))
        if not found:
            raise Skipped("no points are known for its spaces")
        return found


def accepts_known_spaces(j: JudgeUnderTest) -> None:
    unknown = sorted(set(j.card.accepts) - set(KINDS))
    require(not unknown, f"accepts unknown spaces: {', '.join(unknown)}; known: {', '.join(sorted(KINDS))}")


def weights_have_their_checksums(j: JudgeUnderTest) -> None:
    for name, weights in j.card.weights.items():
        path = j.plugin.folder / weights.file
        require(path.is_file(), f"weights {name}: {path} is missing")
        found = sha256_of(path)
        require(found == weights.sha256, f"weights {name}: the SHA-256 of {path} is {found}, not the card's")


def weights_are_safetensors(j: JudgeUnderTest) -> None:
    for name, weights in j.card.weights.items():
        try:
            load_file(j.plugin.folder / weights.file)
        except SafetensorError as error:
            require(False, f"weights {name}: {weights.file} is no safetensors file: {error}")


def entry_is_a_judge(j: JudgeUnderTest) -> None:
    loaded = j.plugin.load()
    require(isinstance(loaded, type) and issubclass(loaded, Judge), f"{j.card.entry} is not a subclass of Judge")


def weights_load(j: JudgeUnderTest) -> None:
    for name, judge in j.loaded.items():
        kind = getattr(getattr(judge, "space", None), "kind", None)
        require(kind in j.card.accepts, f"weights {name}: its space is {kind!r}, which the card does not accept")
        require(re.fullmatch(rf"{j.card.name}@[0-9a-f]{{12}}", judge.key), f"weights {name}: the key is {judge.key!r}")


def features_have_their_shape(j: JudgeUnderTest) -> None:
    for name, judge, x in j.pairs():
        found, wanted = judge.features(x), (NUM, judge.num_features)
        require(tuple(found.shape) == wanted, f"weights {name}: features of shape {tuple(found.shape)}, not {wanted}")
        require(torch.isfinite(found).all(), f"weights {name}: features that are not finite")
        require(found.is_floating_point(), f"weights {name}: features of dtype {found.dtype}")


def features_are_of_each_point(j: JudgeUnderTest) -> None:
    for name, judge, x in j.pairs():
        found, points = judge.features(x), x.clone()
        require(torch.equal(judge.features(x), found), f"weights {name}: other features the second time")
        require(torch.equal(x, points), f"weights {name}: features writes into its points")
        apart = judge.features(x[:5])
        require(torch.allclose(apart, found[:5], atol=1e-3), f"weights {name}: features depend on the other points")


def logits_have_their_shape(j: JudgeUnderTest) -> None:
    classifiers = [(name, judge, x) for name, judge, x in j.pairs() if isinstance(judge, Classifies)]
    if not classifiers:
        raise Skipped("the judge is no classifier")
    for name, judge, x in classifiers:
        found, wanted = judge.logits(x), (NUM, judge.num_classes)
        require(tuple(found.shape) == wanted, f"weights {name}: logits of shape {tuple(found.shape)}, not {wanted}")
        require(torch.isfinite(found).all(), f"weights {name}: logits that are not finite")


def uses_no_global_randomness(j: JudgeUnderTest) -> None:
    with untouched_global_randomness("the judge"):
        for name, judge, x in j.pairs():
            judge_of(j.plugin, name)
            judge.features(x)


CHECKS: Sequence[Callable[[JudgeUnderTest], None]] = (
    accepts_known_spaces,
    weights_have_their_checksums,
    weights_are_safetensors,
    entry_is_a_judge,
    weights_load,
    features_have_their_shape,
    features_are_of_each_point,
    logits_have_their_shape,
    uses_no_global_randomness,
)
PREREQUISITES = frozenset((weights_have_their_checksums, weights_are_safetensors, entry_is_a_judge, weights_load))
