"""BLEU, self-BLEU and distinct n-grams, against nltk, counts by hand and repeated draws."""

from __future__ import annotations

import random

import pytest
import torch

from building import rng
from gmbench.metrics.text_overlap import bleu, distinct, self_bleu


def texts(num: int, seed: int, *, vocabulary: int = 12, longest: int = 14) -> list[list[int]]:
    """Random walks over words: some n-grams are common."""
    draw = random.Random(seed)
    found = []
    for _ in range(num):
        word, text = draw.randrange(vocabulary), []
        for _ in range(draw.randint(1, longest)):
            text.append(word)
            word = (word + draw.choice([1, 1, 1, 2, 5])) % vocabulary
        found.append(text)
    return found


def noisy(text: list[int], seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(12) if draw.random() < 0.15 else word for word in text]


def test_bleu_is_nltks() -> None:
    from nltk.translate.bleu_score import corpus_bleu

    references = [[one, noisy(one, seed)] for seed, one in enumerate(texts(40, 1))]
    shortened = [noisy(own[0], 100 + seed)[: 1 + len(own[0]) * 4 // 5] for seed, own in enumerate(references)]
    hypotheses = [[*text, 1, 2, 3] for text in shortened]
    for order in (1, 2, 4):
        expected = corpus_bleu(references, hypotheses, [1 / order] * order)
        assert bleu(hypotheses, references, order=order).value == pytest.approx(expected)


def test_bleu_of_the_paper_and_its_ends() -> None:
    # Papineni et al., section 2.1: "the" seven times has a clipped precision of 2/7
    reference = [text.split() for text in ("the cat is on the mat", "there is a cat on the mat")]
    found = bleu([["the"] * 7] * 2, [reference] * 2, order=1)
    assert found.value == pytest.approx(2 / 7) and found.stderr == pytest.approx(0, abs=1e-12)
    some = texts(10, 2, longest=9)
    some = [[*text, 1, 2, 3, 4] for text in some]
    assert bleu(some, [[text] for text in some]).value == 1
    assert bleu(some, [[[99, 98, 97, 96, 95]]] * 10).value == 0
    shuffled = [sorted(text) for text in some]
    assert bleu(shuffled, [[text] for text in some]).value < 0.7
    with pytest.raises(ValueError, match="9 sets of references"):
        bleu(some, [[text] for text in some[:9]])
    with pytest.raises(ValueError, match="no reference"):
        bleu(some, [[]] * 10)


def test_a_text_too_short_for_an_n_gram_has_none() -> None:
    some = [["a"], ["b", "c"], ["a", "b", "c", "d", "e"]]
    assert bleu(some, [[text] for text in some]).value == 1
    assert bleu(some[:2], [[text] for text in some[:2]]).value == 0  # no text has four words
    assert bleu(some[:2], [[text] for text in some[:2]], order=1).value == 1


def test_the_error_of_bleu_is_its_spread() -> None:
    def one(seed: int) -> tuple[float, float]:
        references = texts(60, seed)
        changed = [noisy(text, 1000 * seed + index) for index, text in enumerate(references)]
        found = bleu(changed, [[text] for text in references], order=2)
        assert found.stderr is not None
        return found.value, found.stderr

    values, errors = torch.tensor([one(seed) for seed in range(60)]).unbind(1)
    assert 0.75 < float(values.std() / errors.mean()) < 1.3


def test_self_bleu_is_each_sample_against_the_others() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    some = texts(12, 3)
    assert {len(text) < 4 for text in some} == {True, False}
    expected = [
        sentence_bleu(
            some[:i] + some[i + 1 :],
            some[i],
            [1 / min(4, len(some[i]))] * min(4, len(some[i])),
            smoothing_function=SmoothingFunction().method1,
        )
        for i in range(12)
    ]
    found = self_bleu(some, num_hypotheses=12, num_references=11, rng=rng())
    assert found.value == pytest.approx(sum(expected) / 12) and found.n == 12


def test_self_bleu_is_high_where_samples_repeat() -> None:
    varied = [[10 * i + j for j in range(6)] for i in range(40)]
    repeated = [varied[i % 2] for i in range(40)]
    few = {"num_hypotheses": 20, "num_references": 10}
    assert self_bleu(repeated, **few, rng=rng()).value == pytest.approx(1)
    assert self_bleu(varied, **few, rng=rng()).value < 0.05
    some = texts(60, 4)
    one, many = (self_bleu(some, num_hypotheses=60, num_references=num, rng=rng()).value for num in (2, 50))
    assert one < many  # why their number is in the key
    with pytest.raises(ValueError, match="number of samples"):
        self_bleu(some, num_hypotheses=20, num_references=60, rng=rng())
    assert self_bleu([[], *some], num_hypotheses=2, num_references=5, rng=rng()).value < 0.6  # an empty text has none


@pytest.mark.parametrize("num_words", [1, 2, 3, 4])
def test_self_bleu_of_texts_that_are_all_the_same_is_one_however_short(num_words: int) -> None:
    same = [list(range(num_words))] * 30
    assert self_bleu(same, num_hypotheses=20, num_references=10, rng=rng()).value == pytest.approx(1)


def test_the_error_of_bleu_is_over_draws_of_texts() -> None:
    """Every text four times: that is no more text."""
    references = texts(40, 2)
    changed = [noisy(text, index) for index, text in enumerate(references)]
    once = bleu(changed, [[text] for text in references], order=2)
    again = bleu(4 * changed, [[text] for text in 4 * references], order=2, draw=4 * list(range(40)))
    alone = bleu(4 * changed, [[text] for text in 4 * references], order=2)
    assert again.value == pytest.approx(once.value) and again.stderr == pytest.approx(once.stderr) and again.n == 40
    assert alone.stderr is not None and again.stderr is not None and alone.stderr < 0.6 * again.stderr


def test_the_error_of_self_bleu_is_its_spread() -> None:
    found = [self_bleu(texts(120, seed), num_hypotheses=40, num_references=10, rng=rng(seed)) for seed in range(30)]
    values, errors = torch.tensor([(one.value, one.stderr) for one in found]).unbind(1)
    assert 0.7 < float(values.std() / errors.mean()) < 1.5


def test_distinct_counts() -> None:
    some = [[1, 2, 1, 2], [1, 2, 3], [4]]
    assert distinct(some, order=1).value == 4 / 8
    assert distinct(some, order=2).value == 3 / 5  # 12 21 12 / 12 23
    assert distinct([[1, 2]] * 10, order=2).value == 1 / 10
    assert distinct([["a", "b"], ["a", "c"]], order=1).value == 3 / 4
    assert distinct(some, order=4).note == "one text has all n-grams: no error"
    with pytest.raises(ValueError, match="no text has 5 words"):
        distinct(some, order=5)


def test_the_jackknife_of_distinct_leaves_out_each_text() -> None:
    some = texts(25, 5)
    for order in (1, 2):
        left = [distinct(some[:i] + some[i + 1 :], order=order).value for i in range(25)]
        mean = sum(left) / 25
        expected = (24 / 25 * sum((one - mean) ** 2 for one in left)) ** 0.5
        assert distinct(some, order=order).stderr == pytest.approx(expected)


def test_nltk_leaves_pythons_generator_alone() -> None:
    state = random.getstate()
    bleu(texts(3, 1), [[one] for one in texts(3, 2)])
    assert random.getstate() == state
