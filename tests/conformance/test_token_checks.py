"""The checks of models of token sequences pass a sound Markov chain and catch each planted fault."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from gmbench.conformance import tokens
from gmbench.conformance.checks import Skipped
from gmbench.spaces import BinaryVector, TokenPair, TokenSequence

V, T = 5, 8
SPACE = TokenSequence(V, T)


class Chain:
    """A Markov chain over the ids 1 … V - 1 that begins in the row of PAD."""

    def __init__(self) -> None:
        logits = torch.randn(V, V, generator=Generator().manual_seed(0))
        logits[:, 0] = -torch.inf
        self.log_p = logits.log_softmax(1)

    def token_log_prob(self, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return torch.where(x == 0, torch.zeros(()), self.log_p[before, x])

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        x, last = [], torch.zeros(num, dtype=torch.long)
        for _ in range(T):
            last = torch.multinomial(self.log_p[last].exp(), 1, generator=rng)[:, 0]
            x.append(last)
        drawn = torch.stack(x, 1)
        drawn[:, -1][~(drawn == 1).any(1)] = 1
        drawn[(drawn == 1).cumsum(1) - (drawn == 1).long() > 0] = 0
        return drawn

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """The middle token of every three, given its neighbours, by the chain."""
        behind = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        joint = self.log_p[before][..., None] + self.log_p[None, None]  # (B, T, V, V): before -> this -> behind
        joint = joint.gather(3, behind[:, :, None, None].expand(-1, -1, V, 1))[..., 0]
        joint = torch.where((behind == 0)[..., None], self.log_p[before], joint)
        each = joint.log_softmax(2).gather(2, x[..., None])[..., 0]
        return torch.where(x == 0, torch.zeros(()), each).sum(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return x


class Translator(Chain):
    """Targets follow the chain, whatever the source is."""

    def token_log_prob(self, x: Tensor) -> Tensor:
        return super().token_log_prob(x[:, T:])


def under_test(model: Any, space: Any = SPACE) -> Any:
    points = Chain().sample(16, rng=Generator().manual_seed(1))
    if isinstance(space, TokenPair):
        points = torch.cat([points.roll(1, 0), points], 1)
    return SimpleNamespace(
        fitted=model, points=points, data=SimpleNamespace(space=space), ask=lambda name: getattr(model, name)
    )


CHECKS: dict[str, Callable[[Any], None]] = {
    "sum": tokens.token_log_probs_make_up_log_prob,
    "past": tokens.token_log_prob_looks_back_only,
    "one": tokens.next_tokens_sum_to_one,
    "samples": tokens.first_tokens_are_sampled_as_scored,
    "back": tokens.sequences_come_back,
    "pseudo": tokens.pseudo_log_probs_leave_room_for_other_words,
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_model_passes(name: str) -> None:
    CHECKS[name](under_test(Chain()))


@pytest.mark.parametrize("name", ["sum", "past", "one", "samples"])
def test_a_sound_model_of_pairs_passes(name: str) -> None:
    CHECKS[name](under_test(Translator(), TokenPair(SPACE, SPACE)))


def test_a_sound_model_of_a_stream_passes() -> None:
    model = under_test(Chain(), TokenSequence(V, T, ends=False))
    model.points = model.points.clamp(min=1)
    tokens.token_log_prob_looks_back_only(model)
    tokens.next_tokens_sum_to_one(model)


def leaking(model: Chain) -> Callable[[Tensor], Tensor]:
    """Every token is scored knowing the one behind it."""

    def token_log_prob(x: Tensor) -> Tensor:
        behind = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return torch.where(x == 0, torch.zeros(()), model.log_p[behind, x])

    return token_log_prob


FAULTS: list[tuple[str, str, Callable[[Chain], Callable[..., Any]], str]] = [
    ("sum", "token_log_prob", lambda m: lambda x: m.log_p[0, x], "not 0 where a sequence is padded"),
    ("sum", "token_log_prob", lambda m: lambda x: Chain.token_log_prob(m, x)[:, :-1], "positions"),
    ("sum", "token_log_prob", lambda m: lambda x: -Chain.token_log_prob(m, x), "no probability is above 1"),
    (
        "sum",
        "log_prob",
        lambda m: lambda x, rng: Chain.token_log_prob(m, x)[:, :-1].sum(1) / 2,
        "sums to log_prob less",
    ),
    ("past", "token_log_prob", leaking, "change what came before"),
    ("one", "token_log_prob", lambda m: lambda x: Chain.token_log_prob(m, x) * 0.8, "sum to"),
    ("one", "token_log_prob", lambda m: lambda x: Chain.token_log_prob(m, x) - 0.1 * (x != 0), "sum to"),
    (
        "samples",
        "sample",
        lambda m: lambda num, rng: torch.tensor([[2, 1] + [0] * (T - 2)]).repeat(num, 1),
        "chi-square",
    ),
    ("samples", "sample", lambda m: lambda num, rng: Chain.sample(m, num, rng=rng)[:, :-1], "samples: shape"),
    ("back", "reconstruct", lambda m: lambda x: x[:, :-1], "reconstructions: shape"),
    ("back", "reconstruct", lambda m: lambda x: x.float(), "where whole numbers are expected"),
    ("pseudo", "pseudo_log_prob", lambda m: lambda x: 0.1 * Chain.pseudo_log_prob(m, x), "sum to"),  # it sees itself
    ("pseudo", "pseudo_log_prob", lambda m: lambda x: m.log_p[0, x], "pseudo_log_prob gave"),
]


@pytest.mark.parametrize(("check", "name", "fault", "said"), FAULTS)
def test_a_fault_is_caught(check: str, name: str, fault: Callable[[Chain], Callable[..., Any]], said: str) -> None:
    model = Chain()
    setattr(model, name, fault(model))
    with pytest.raises(Exception, match=said) as caught:
        CHECKS[check](under_test(model))
    assert "\n" not in str(caught.value)


def test_points_that_are_no_sequences_are_left_alone() -> None:
    for check in CHECKS.values():
        with pytest.raises(Skipped):
            check(under_test(Chain(), BinaryVector(3)))
