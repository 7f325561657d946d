"""The real files of the corpora, where $GMBENCH_DATA has them: counts, splits, words, and fixed test sentences."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gmbench.plugin import TaskCard
from gmbench.registry import discover
from gmbench.task import Task

FOLDER = Path(os.environ.get("GMBENCH_DATA") or "/nowhere")
REGISTRY = discover()
# lines of the three parts, words of the test file, the longest line
COUNTS = {
    "ptb": ((42_068, 3_370, 3_761), 78_669, 82),
    "wikitext2": ((3_417, 343, 4_358), 241_211, 481),
    "snli": ((4_000, 499, 499), 4_401 - 13, 47),
    "yahoo": ((9_000, 1_000, 10_000), 788_673, 200),
    "yelp": ((6_773, 1_000, 8_671), 420_450 - 8_671, 50),
}
# SHA-256 of the held-out rows: other ones would change every number unnoticed.
ROWS = {
    "ptb": "b00a76a1b6d0bbe7",
    "wikitext2": "7ba366bdf78953ff",
    "snli": "a66e0cce956a3aeb",
    "yahoo": "cff7a0e01582c106",
    "yelp": "1dc536626c34174b",
}


def card_of(name: str) -> TaskCard:
    card = REGISTRY.task(name).card
    assert isinstance(card, TaskCard)
    return card


def real(name: str):  # type: ignore[no-untyped-def]
    """The name of a task, skipped without its files."""
    there = all((FOLDER / file.path).is_file() for file in card_of(name).data)
    reason = f"the files of {name} are not in the folder that $GMBENCH_DATA names"
    return pytest.param(name, marks=pytest.mark.skipif(not there, reason=reason))


ALL = [real(name) for name in COUNTS]


@cache
def task_of(name: str, context: str, track: str = "medium") -> Task:
    card = card_of(name)
    [variant] = [one for one in card.variants if one.factors["context"] == context]
    task: Task = REGISTRY.task(name).load()(card, variant.factors, track)
    return task


def digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for one in tensors:
        found.update(one.numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", ALL)
def test_counts_are_those_of_the_files(name: str) -> None:
    lines, num_words, longest = COUNTS[name]
    task = task_of(name, "sentence")
    corpus = task.corpus  # type: ignore[attr-defined]
    parts = corpus.train, corpus.validation, corpus.test
    assert tuple(len(part.lengths) for part in parts) == lines
    assert int(corpus.test.lengths.sum()) == num_words
    assert max(int(part.lengths.max()) for part in parts) == longest
    assert len(set(corpus.vocabulary.words)) == card_of(name).protocol["vocab_size"]
    assert (corpus.train.ids.bincount(minlength=len(corpus.vocabulary.words))[1:] > 0).all()  # each can be learnt
    space = task.space
    for x in (task.data(0).fixed, task.data(0).validation, task.test):  # type: ignore[attr-defined]
        space.validate(x)
    assert name == "wikitext2" or longest == space.max_length - 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ALL)
def test_held_out_rows_stay_the_same(name: str) -> None:
    task = task_of(name, "sentence", "small")
    assert digest(task.data(0).validation, task.test) == ROWS[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ALL)
def test_parts_are_apart(name: str) -> None:
    """Long sentences are in one part only, formulas of the newspaper apart: no file is read twice."""
    task = task_of(name, "sentence")
    train, test = task.data(0).fixed, task.test  # type: ignore[attr-defined]
    known = {tuple(row) for row in train.tolist() if sum(token > 2 for token in row) > 12}
    validation = task.data(0).validation
    for part in (test, validation):
        assert sum(tuple(row) in known for row in part.tolist()) <= 0.011 * len(part)


@pytest.mark.parametrize("name", [real("ptb")])
def test_the_penn_treebank_has_its_ten_thousand_words(name: str) -> None:
    words = task_of(name, "sentence").corpus.vocabulary.words  # type: ignore[attr-defined]
    assert len(set(words) - {"<pad>"}) == 10_000  # <unk> and the end among them
    assert words[:6] == ("<pad>", "<eos>", "<unk>", "the", "N", "of")
    sentences, stream = (task_of(name, context) for context in ("sentence", "stream"))
    for task in (sentences, stream):
        assert int(task.units.words.sum()) == 82_430  # type: ignore[attr-defined]
        assert int(task.units.utf8.sum()) == 449_945 - 2 * 3_761  # type: ignore[attr-defined]
    assert torch.equal(stream.test, stream.corpus.test.ids)  # type: ignore[attr-defined]
    first = sentences.space.text(stream.test[None, :7])  # type: ignore[attr-defined]
    assert first == ["no it was n't black monday"]


@pytest.mark.parametrize("name", [real("wikitext2")])
def test_wikitext_keeps_its_blank_lines_in_the_stream_alone(name: str) -> None:
    stream, sentences = (task_of(name, context) for context in ("stream", "sentence"))
    assert int(stream.units.words.sum()) == 245_569  # type: ignore[attr-defined]
    of_sentences = sentences.units  # type: ignore[attr-defined]
    cut = len(sentences.test) - (4_358 - 1_467)  # type: ignore[attr-defined]
    assert int(of_sentences.words.sum()) == 245_569 - 1_467 + cut
    assert int(stream.units.utf8.sum() - of_sentences.utf8.sum()) == 1_467  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [real("yelp")])
def test_ratings_have_their_counts(name: str) -> None:
    corpus = task_of(name, "sentence").corpus  # type: ignore[attr-defined]
    assert corpus.test.classes.bincount().tolist() == [299, 751, 1607, 3567, 2447]
    both = torch.cat([corpus.train.classes, corpus.validation.classes])
    assert both.bincount().tolist() == [246, 669, 1491, 3207, 2160]
    data = task_of(name, "sentence").data(0)
    assert data.num_classes == 5 and data.draw_labelled is not None
