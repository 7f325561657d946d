"""Words, parts and lines of corpora: what each id means, which line goes where, and what is refused."""

from __future__ import annotations

import copy
import gzip
from collections import Counter
from pathlib import Path

import pytest
import torch

from gmbench.errors import UserError
from gmbench.spaces import TokenSequence
from gmbench.tasks.language.corpora.corpus import Recipe, load
from gmbench.tasks.language.corpora.parts import Part, Parts, held_out, rated, read_part, three_files
from gmbench.tasks.language.corpora.vocabulary import Words, vocabulary_of
from gmbench.tasks.language.snli.task import apart
from gmbench.tasks.language.wikitext2.task import by_articles

TEXT = ["b", "a", "b", "<unk>", "c", "a", "b", "Äpfel", "zu"]


def written(path: Path, *lines: str) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def test_words_come_by_frequency_and_then_by_the_alphabet() -> None:
    found = vocabulary_of(TEXT, 8, "here", closed=True)
    assert found.words == ("<pad>", "<eos>", "<unk>", "b", "a", "c", "zu", "Äpfel")
    assert found.encode(["zu", "b", "b", "<unk>", "new", "<pad>", "<eos>"], "there").tolist() == [6, 3, 3, 2, 2, 2, 2]
    assert vocabulary_of(TEXT, 5, "here").words[3:] == ("b", "a")


def test_a_word_that_is_written_like_a_special_one_is_a_word() -> None:
    found = vocabulary_of(["<eos>", "<eos>", "x", "<pad>"], 6, "here", closed=True)
    assert found.words == ("<pad>", "<eos>", "<unk>", "<eos>", "<pad>", "x")
    assert found.encode(["<eos>", "<pad>", "x"], "there").tolist() == [3, 4, 5]


@pytest.mark.parametrize(("size", "closed"), [(9, False), (9, True), (7, True)])
def test_another_number_of_words_is_refused(size: int, closed: bool) -> None:
    with pytest.raises(UserError, match=rf"some\.txt: 5 different words where {size - 3} are expected beside <pad>, "):
        vocabulary_of(TEXT, size, "some.txt", closed=closed)


def test_a_word_outside_needs_an_unknown_word_inside() -> None:
    complete = vocabulary_of(["a", "b", "a"], 5, "here", closed=True)
    assert complete.encode(["a", "b"], "test.txt").tolist() == [3, 4]
    with pytest.raises(UserError, match=r"test\.txt: 2 of its 4 words .* 'c' first, and that text has no <unk>"):
        complete.encode(["a", "c", "b", "d"], "test.txt")
    for other in (vocabulary_of(["a", "b", "a"], 4, "here"), vocabulary_of(["a", "b", "<unk>"], 5, "here")):
        assert other.encode(["c"], "test.txt").tolist() == [2]


def test_words_are_read_when_asked_for() -> None:
    asked = []

    def read() -> tuple[str, ...]:
        asked.append(1)
        return "<pad>", "<eos>", "<unk>", "a"

    words = Words(4, read)
    space = TokenSequence(4, 3, words=words)  # type: ignore[arg-type]
    assert len(words) == 4 and bool(words) and copy.deepcopy(space) == space and not asked
    assert words[3] == "a" and list(words) == ["<pad>", "<eos>", "<unk>", "a"] and words[2:] == ("<unk>", "a")
    assert space.text(torch.tensor([[3, 2, 1], [1, 0, 0]])) == ["a <unk>", ""]


def test_lines_become_ids_with_their_ends(tmp_path: Path) -> None:
    train = written(tmp_path / "train.gz", " b a  b ", "", "_UNK c a b", "z")
    rest = written(tmp_path / "rest.gz", "a new b")
    found = load(Recipe(three_files, 6, False, "_UNK"), train, rest, rest)
    assert found.vocabulary.words == ("<pad>", "<eos>", "<unk>", "b", "a", "c")
    assert found.train.ids.tolist() == [3, 4, 3, 1, 1, 2, 5, 4, 3, 1, 2, 1]
    assert found.train.lengths.tolist() == [3, 0, 4, 1]
    assert found.test.ids.tolist() == found.validation.ids.tolist() == [4, 2, 3, 1]
    assert load(Recipe(three_files, 6, False, "_UNK"), train, rest, rest) is found


def test_held_out_lines_are_the_others_and_always_the_same() -> None:
    part = Part([f"line {number}" for number in range(50)], "here", torch.arange(50))
    kept, taken = held_out(part, 10, "some/name")
    assert (len(kept.lines), len(taken.lines)) == (40, 10)
    assert sorted(kept.lines + taken.lines) == sorted(part.lines)
    for some in (kept, taken):
        assert some.classes is not None and some.classes.tolist() == sorted(some.classes.tolist())
        assert some.lines == [f"line {number}" for number in some.classes.tolist()]
    assert taken.lines == held_out(part, 10, "some/name")[1].lines != held_out(part, 10, "another")[1].lines
    assert taken.lines[:3] == ["line 2", "line 3", "line 10"]  # whatever the version of torch
    with pytest.raises(UserError, match="here: 50 lines, of which 50 cannot be held out"):
        held_out(part, 50, "some/name")


def test_ratings_are_no_text() -> None:
    found = rated(Part(["3 good 4", " 0  bad ", "2"], "here"), 5)
    assert [line.split() for line in found.lines] == [["good", "4"], ["bad"], []]
    assert found.classes is not None and found.classes.tolist() == [3, 0, 2]
    for wrong in ("5 too much", "good", "", "-1 x"):
        with pytest.raises(UserError, match=r"here: line 2 begins with .* where a rating from 0 to 4 is expected"):
            rated(Part(["1 x", wrong], "here"), 5)


def test_sentences_of_the_training_file_are_in_no_other(tmp_path: Path) -> None:
    files = (
        written(tmp_path / "train.gz", "same.", "a b", "c"),
        written(tmp_path / "valid.gz", "same.", "d"),
        written(tmp_path / "test.gz", "same.", "e", "d"),
    )
    found = apart(*files)
    assert [part.lines for part in found] == [["same.", "a b", "c"], ["d"], ["e", "d"]]


def test_articles_stay_whole(tmp_path: Path) -> None:
    def article(number: int, lines: int) -> list[str]:
        return [" ", f" = Title {number} = ", " ", " = = Section = = ", *[f" text {number} "] * (lines - 4)]

    lines = [*article(0, 50), *article(1, 41), *article(2, 9)]
    files = written(tmp_path / "valid.gz", *lines), written(tmp_path / "test.gz", "x")
    found: Parts = by_articles(*files)
    assert found.validation.lines[0] == " = Title 2 = " and len(found.validation.lines) == 8
    assert found.train.lines + found.validation.lines == lines
    assert not set(Counter(found.train.lines)) & {" = Title 2 = ", " text 2 "}
    one = written(tmp_path / "one.gz", *article(0, 50))
    with pytest.raises(UserError, match=r"one\.gz: no article begins in the last tenth of its 50 lines"):
        by_articles(one, files[1])


def test_a_part_says_where_it_is_from(tmp_path: Path) -> None:
    path = written(tmp_path / "some.gz", "a", "b")
    part = read_part(path)
    assert part.source == str(path) and part.take(torch.tensor([1])) == Part(["b"], str(path))
