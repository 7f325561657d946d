"""Distances of agreement, features of sentences, and classifiers with few labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.tasks.language.pcfg.agreement import by_distance, distances
from gmbench.tasks.language.pcfg.features import features, standardised
from gmbench.tasks.language.pcfg.grammars import closers, language
from gmbench.tasks.language.pcfg.language import Language
from gmbench.tasks.language.pcfg.low_resource import few_label_accuracy


def rows(truth: Language, *texts: str) -> Tensor:
    x = torch.zeros(len(texts), truth.max_length, dtype=torch.long)
    for row, text in zip(x, texts, strict=True):
        ids = [truth.space.words.index(word) for word in [*text.split(), "</s>"]]
        row[: len(ids)] = torch.tensor(ids)
    return x


def test_distances_are_those_of_brackets() -> None:
    truth = language("deep", 256)
    x = truth.sample(300, rng=rng())
    found = distances(truth.grammar, x, closers(truth.grammar))
    for row, text in enumerate(truth.space.text(x)):
        stack, expected = [], []
        for position, word in enumerate(text.split()):
            if word[0] == "o":
                stack.append((position, word[1:]))
            elif word[0] == "c":
                begin, number = stack.pop()
                assert number == word[1:]
                expected.append((position, position - begin))
        places = found[row].nonzero()[:, 0].tolist()
        assert list(zip(places, found[row][places].tolist(), strict=True)) == expected


def test_bins_of_agreement_hold_their_closers_and_their_ratio() -> None:
    excess = torch.tensor([[9.0, 0.5, 1.5, 9.0], [9.0, 2.0, 9.0, 4.0], [9.0, 9.0, 9.0, 0.0]]).double()
    distance = torch.tensor([[0, 3, 9, 0], [0, 5, 0, 3], [0, 0, 0, 40]])
    found = by_distance(excess, distance, [1, 4, 8, 16, 32])
    assert {name: one.value for name, one in found.items()} == {
        "all": pytest.approx(8 / 5), "d1-3": pytest.approx(4.5 / 2), "d4-7": 2, "d8-15": 1.5, "d32+": 0,
    }  # fmt: skip
    assert found["all"].note == "5 closers" and found["d1-3"].n == 2
    assert found["d1-3"].stderr == pytest.approx((4 - 0.5) / 2)  # of two sentences with one closer each


def test_the_features_of_a_sentence_are_what_they_say() -> None:
    truth = language("small", 256)
    x = rows(truth, "o1 n1 v1 c1 .", "o1 o2 n2 v1 c1 n1", "v12 v12", "c3 and")
    found = features(truth.grammar, x)
    kinds = ["o", "c", "n", "v", "and", "very", ".", "but"]
    assert found.shape == (4, 5 + 8 + 81) and bool(found.isfinite().all())
    assert found[:, 0].exp().sub(1).tolist() == pytest.approx([5, 6, 2, 2])
    assert found[:, 1].tolist() == [1, 2, 0, 0] and found[:, 2].tolist() == [0, 1, 0, -1]
    assert found[:, 3].tolist() == [1, 0, 1, 0]
    assert found[:, 4].tolist() == pytest.approx([0, 2 * math.log(2) / 6, math.log(12), math.log(3)])
    counts = found[:, 5:13].sum(1)
    assert counts.tolist() == pytest.approx([1, 1, 1, 1])
    of_words = dict(zip(kinds, found[1, 5:13].tolist(), strict=True))
    assert of_words == pytest.approx({"o": 2 / 6, "n": 2 / 6, "v": 1 / 6, "c": 1 / 6} | dict.fromkeys(kinds[4:], 0))
    pairs = found[:, 13:].reshape(4, 9, 9)  # by kind before and after, the edge first
    assert (pairs.sum((1, 2)) * torch.tensor([5, 6, 2, 2])).tolist() == pytest.approx([6, 7, 3, 3])
    v = 1 + kinds.index("v")
    assert pairs[2].nonzero().tolist() == [[0, v], [v, 0], [v, v]]


def test_standardised_features_have_the_references_scale() -> None:
    truth = language("small", 256)
    x = features(truth.grammar, truth.sample(500, rng=rng(1)))
    z = standardised(x, x)
    assert float(z.mean(0).abs().max()) < 1e-9
    assert float(z.std(0).max()) == pytest.approx(1) and bool(z.isfinite().all())


def test_few_labels_are_enough_where_classes_are_far_apart_and_more_help_where_they_are_not() -> None:
    classes = torch.arange(2000) % 4
    test_classes = torch.arange(800) % 4
    centres = torch.randn(4, 10, generator=rng(2))

    def draw(labels: Tensor, spread: float, seed: int) -> Tensor:
        return centres[labels] + spread * torch.randn(len(labels), 10, generator=rng(seed))

    def accuracy(spread: float, per_class: int) -> float:
        data = draw(classes, spread, 3), classes, draw(test_classes, spread, 4), test_classes
        found = few_label_accuracy(*data, per_class=per_class, num_draws=3, rng=rng(5))
        assert found.stderr is not None and 0 <= found.stderr < 0.1
        return found.value

    assert accuracy(0.05, 5) == 1
    assert 0.3 < accuracy(2, 5) + 0.03 < accuracy(2, 300)
    noise = torch.randn(2000, 10, generator=rng(6))
    chance = few_label_accuracy(noise, classes, noise[:800], test_classes.flip(0), per_class=5, num_draws=3, rng=rng())
    assert abs(chance.value - 0.25) < 0.06
    with pytest.raises(ValueError, match="one class has 500"):
        few_label_accuracy(noise, classes, noise[:8], test_classes[:8], per_class=501, num_draws=3, rng=rng())


def test_the_standard_error_knows_of_the_choice_of_labels() -> None:
    """Accuracies of repeated measurements, fresh points and labels each time, spread about as much as they say."""
    centres = torch.randn(3, 5, generator=rng(7))
    values, errors = [], []
    for seed in range(30):
        test_classes, classes = torch.arange(150) % 3, torch.arange(300) % 3
        train, test = (
            centres[labels] + 1.5 * torch.randn(len(labels), 5, generator=rng(100 * seed + offset))
            for offset, labels in ((1, classes), (2, test_classes))
        )
        one = few_label_accuracy(train, classes, test, test_classes, per_class=10, num_draws=3, rng=rng(seed))
        assert one.stderr is not None
        values.append(one.value)
        errors.append(one.stderr)
    spread, stated = torch.tensor(values).std(), torch.tensor(errors).mean()
    assert 0.6 < float(spread / stated) < 1.6
