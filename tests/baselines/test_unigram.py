"""The unigram row against counts written out, and its draws against its probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.reference.unigram.model import Unigram
from gmbench.errors import MissingCapability
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Trainer

TRAIN = torch.tensor([[2, 2, 3, 1, 0], [2, 1, 0, 0, 0], [1, 0, 0, 0, 0]])


def fitted(train: Tensor, *, ends: bool = True) -> Unigram:
    space = TokenSequence(5, train.shape[1], ends=ends)
    model = from_card(Unigram, space, "pcfg")
    Trainer().fit(model, Data(space, train, lambda num, g: train[:num], train))
    return model


def test_probabilities_are_counts_plus_one() -> None:
    model = fitted(TRAIN)  # twos: 3, threes: 1, ends: 3, fours: 0
    assert model.prob.tolist() == pytest.approx([0, 4 / 11, 4 / 11, 2 / 11, 1 / 11])
    each = model.token_log_prob(torch.tensor([[4, 2, 1, 0, 0]]))
    expected = [math.log(1 / 11), math.log(4 / 11), math.log(4 / 11), 0, 0]
    assert each[0].tolist() == pytest.approx(expected)
    assert float(model.log_prob(torch.tensor([[4, 2, 1, 0, 0]]), rng=rng())) == pytest.approx(sum(expected))


def test_samples_are_independent_tokens_up_to_the_end() -> None:
    model = fitted(TRAIN)
    x = model.sample(20_000, rng=rng(1))
    model.space.validate(x)
    frequency = x[:, 0].bincount(minlength=5) / 20_000
    torch.testing.assert_close(frequency, model.prob.float(), rtol=0, atol=0.02)
    lengths = (x > 1).sum(1)
    for length in range(4):  # geometric until the row is full
        share = float((lengths == length).float().mean())
        assert share == pytest.approx((7 / 11) ** length * 4 / 11, abs=0.02)


def test_rows_of_a_stream_are_full() -> None:
    model = fitted(torch.tensor([[2, 1, 3], [3, 3, 3]]), ends=False)
    assert model.prob.tolist() == pytest.approx([0, 0.2, 0.2, 0.5, 0.1])
    x = model.sample(5000, rng=rng(2))
    model.space.validate(x)
    frequency = x.flatten().bincount(minlength=5) / x.numel()
    torch.testing.assert_close(frequency, model.prob.float(), rtol=0, atol=0.02)


def test_the_card_agrees_with_the_code() -> None:
    assert {c for c in CAPABILITIES if offers(fitted(TRAIN), c)} == set(card_of(Unigram).capabilities)
    assert card_of(Unigram).role == "reference"


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        fitted(TRAIN).sample(2, given=torch.tensor([0, 1]), rng=rng())
