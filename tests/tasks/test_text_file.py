"""Any text as a corpus: which lines go where, which words are known, known answers, and what is refused."""

from __future__ import annotations

import gzip
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gmbench import api
from gmbench.errors import UserError
from gmbench.measuring import measure
from gmbench.model import TokenCounts
from gmbench.plugin import TaskCard
from gmbench.registry import discover
from gmbench.tasks.language.corpora.vocabulary import open_vocabulary
from gmbench.tasks.language.text_file import splits
from gmbench.tasks.language.text_file import task as text_file_task
from gmbench.tasks.language.text_file.default_text import default_text
from gmbench.tasks.language.text_file.splits import by_tens, in_order

REGISTRY = discover()
WORDS = ("ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew")


def made(path: Path | str, context: str = "sentence", track: str = "smoke") -> Any:
    plugin = REGISTRY.task(f"text_file:{path}" if path else "text_file")
    assert isinstance(plugin.card, TaskCard)
    return plugin.load()(plugin.card, plugin.card.variant(f"context={context}").factors, track)


def written(path: Path, lines: list[str] | bytes) -> Path:
    path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
    return path


def random_lines(num: int, seed: int = 0, words: tuple[str, ...] = WORDS) -> list[str]:
    rng = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (num,), generator=rng).tolist()
    return [" ".join(words[int(i)] for i in torch.randint(len(words), (size,), generator=rng)) for size in sizes]


def flat(lists: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(lists))


class Uniform:
    """All words and the end equally likely."""

    def __init__(self, vocab_size: int) -> None:
        self.nats = math.log(vocab_size - 1)

    def token_log_prob(self, x: Tensor) -> Tensor:
        return torch.full(x.shape, -self.nats, dtype=torch.float64).masked_fill(x == 0, 0.0)


def test_of_every_ten_lines_one_is_validation_and_one_is_test(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(1005)]
    found = by_tens(written(tmp_path / "some.txt", lines))
    tens = [Counter(int(line.split()[1]) // 10 for line in part.lines) for part in found]
    assert [max(ten.values()) for ten in tens] == [8, 1, 1] and [len(ten) for ten in tens[1:]] >= [100, 100]
    assert sorted(flat(part.lines for part in found)) == sorted(lines)
    assert all(part.lines == sorted(part.lines, key=lines.index) for part in found)
    places = Counter(int(line.split()[1]) % 10 for line in found.test.lines)
    assert len(places) == 10 and max(places.values()) < 25  # of 100: nothing that comes every ten lines is left out
    assert found.test.lines[:5] == ["line 5", "line 15", "line 27", "line 31", "line 44"]
    assert found.validation.lines[:5] == ["line 8", "line 14", "line 20", "line 32", "line 45"]


def test_further_and_blank_lines_move_no_line_into_another_part(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(95)]
    with_blanks = [" ", *flat([line, "", "\t"] for line in lines)]
    one, more, blank = (
        by_tens(written(tmp_path / f"{number}.txt", some))
        for number, some in enumerate((lines, [*lines, "x", "y", "z"], with_blanks))
    )
    for first, second, third in zip(one, more, blank, strict=True):
        assert first.lines == third.lines == [line for line in second.lines if line.startswith("line")]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=7), min_size=1).filter(lambda x: sum(map(len, x)) >= 10))
def test_a_text_in_order_loses_no_word(tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "hypothesis.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "MIN_WORDS", 10)
        parts = in_order(written(path, ["  ".join(line) for line in lines]))
    text = flat(lines)
    found = [flat(line.split() for line in part.lines) for part in parts]
    assert flat(found) == text
    assert [len(part) for part in found[:2]] == [len(text) * 8 // 10, len(text) * 9 // 10 - len(text) * 8 // 10]
    whole = [line for part in parts for line in part.lines if line.split()]
    assert len(whole) <= sum(map(bool, lines)) + 2  # a line is cut at a border and nowhere else
    assert sum(not line.split() for part in parts for line in part.lines) <= sum(not line for line in lines)


def test_a_text_of_one_line_is_cut_within(tmp_path: Path) -> None:
    words = [str(number % 97) for number in range(1000)]
    parts = in_order(written(tmp_path / "one.txt", [" ".join(words)]))
    assert [part.lines for part in parts] == [
        [" ".join(words[:800])], [" ".join(words[800:900])], [" ".join(words[900:])]
    ]  # fmt: skip
    task = made(tmp_path / "one.txt", "stream")
    assert task.test.shape == (101,) and task.block == 101 // 16  # its end counts
    assert task.space.vocab_size == 3 + 96


def test_known_words_are_those_that_come_twice_and_never_all() -> None:
    def known(text: str, size: int = 100) -> tuple[str, ...]:
        found = open_vocabulary(text.split(), size, "here")
        assert found.knows_unknown and found.words[:3] == ("<pad>", "<eos>", "<unk>")
        assert set(found.encode([*text.split(), "new"], "here").tolist()) <= set(range(2, len(found.words)))
        return found.words[3:]

    assert known("b a b c a b d") == ("b", "a")
    assert known("b a b a b") == ("b",)  # else nothing would be <unk>, and a new word have no id
    assert known("b a b a b <unk>") == ("b", "a")
    assert known("b a b c a c", 5) == ("a", "b")
    for few in ("a b c", "a a", "<unk> <unk>"):
        with pytest.raises(UserError, match="here: none of its words can be known"):
            known(few)


@pytest.mark.parametrize("context", ["sentence", "stream"])
def test_a_uniform_model_has_the_perplexity_of_its_words(tmp_path: Path, context: str) -> None:
    lines = random_lines(2000)
    lines[7] += " seldom"
    task = made(written(tmp_path / "some.txt", lines), context)
    assert task.space.vocab_size == 3 + len(WORDS) and set(task.space.words[3:]) == set(WORDS)
    data = task.data(0)
    for x in (data.draw(50, torch.Generator().manual_seed(0)), data.validation):
        task.space.validate(x)
    found = measure(task, Uniform(task.space.vocab_size), 0).merged.estimates
    assert found["word_perplexity.exact"].value == pytest.approx(len(WORDS) + 2)
    assert found["word_nats.exact"].stderr == pytest.approx(0, abs=1e-9)
    assert ("nll.exact" in found) == (context == "sentence")
    num_bytes = float(task.units.utf8.sum())
    nats = math.log(len(WORDS) + 2) * float(task.units.words.sum())
    assert found["bits_per_byte.exact"].value == pytest.approx(nats / num_bytes / math.log(2))


@pytest.mark.parametrize("context", ["sentence", "stream"])
def test_a_run_has_the_numbers_that_counting_gives(tmp_path: Path, context: str) -> None:
    lines = random_lines(400)
    path = written(tmp_path / "some.txt", [*lines, *(f"{line} rare{i}" for i, line in enumerate(lines[:100]))])
    train, _, test = (
        Counter(chain.from_iterable([*line.split(), ""] for line in part.lines))
        for part in (by_tens if context == "sentence" else in_order)(path)
    )
    for part in (train, test):
        for word in set(part) - {*WORDS, ""}:
            part["<unk>"] += part.pop(word)
    if context == "stream":  # what fills no window is not fitted
        ids = made(path, context).corpus.train.ids
        for token in ids[len(ids) // 64 * 64 :].tolist():
            train[made(path, context).space.words[token] if token != 1 else ""] -= 1
    total = sum(train.values()) + len(WORDS) + 2
    nats = -sum(count * math.log((train[word] + 1) / total) for word, count in test.items())
    record = api.run(
        f"text_file:{path}", "unigram", variant=f"context={context}", track="smoke", out=tmp_path / "runs"
    )  # fmt: skip
    assert record.metrics["word_nats.exact"].value == pytest.approx(nats / sum(test.values()), rel=1e-6)
    share = test["<unk>"] / sum(test.values())
    assert f"{share:.1%} of what is counted is <unk>; 8 words are known" in record.metrics["word_nats.exact"].note
    assert ("diversity.distinct1.n60" in record.metrics) == (context == "sentence")


class Reader:
    """Gives every byte of a text, and its end, a nat."""

    def score_text(self, texts: list[str]) -> Tensor:
        return -torch.tensor([len(text.encode()) + 1.0 for text in texts], dtype=torch.float64)

    def count_tokens(self, texts: list[str]) -> TokenCounts:
        return TokenCounts("bytes", torch.tensor([len(text.encode()) + 1 for text in texts]))


@pytest.mark.parametrize("context", ["sentence", "stream"])
def test_a_model_of_text_reads_what_stands_in_the_file(tmp_path: Path, context: str) -> None:
    """Words that come once are <unk> to models of words, and to nobody else."""
    lines = [f"{line} singular{number}" for number, line in enumerate(random_lines(400))]
    task = made(written(tmp_path / "some.txt", lines), context)
    kept = [text.split() for text in task.texts("raw")]
    assert [[word if word in WORDS else "<unk>" for word in text] for text in kept] == [
        text.split() for text in task.texts("text")
    ]
    found = {word for text in kept for word in text}
    assert len(found & {word for line in lines for word in line.split()}) == len(found) > 30
    measured = measure(task, Reader(), 0)
    got = {key: one.value for key, one in measured.merged.estimates.items()}
    assert measured.merged.headline == "word_nats.text"
    for key in ("text", "raw"):
        assert got[f"bits_per_byte.{key}"] == pytest.approx(1 / math.log(2), rel=2e-3)  # a line may end within a block
        assert got[f"token_perplexity.{key}.bytes"] == pytest.approx(math.e)
    assert got["word_nats.raw"] > got["word_nats.text"] + 0.5  # "singular123" has more bytes than "<unk>"
    assert "the file's own words" in measured.merged.estimates["word_nats.raw"].note
    words_only = measure(task, Uniform(task.space.vocab_size), 0)
    assert not [key for key in words_only.merged.estimates if "raw" in key or "token_perplexity" in key]


def test_a_word_written_like_a_mark_is_the_word(tmp_path: Path) -> None:
    lines = [f"{line} <eos> <pad> <unk>" for line in random_lines(60)]
    task = made(written(tmp_path / "some.txt", lines))
    assert all(text.endswith(" <eos> <pad> <unk>") for text in task.texts("raw"))


def test_the_space_is_that_of_the_text(tmp_path: Path) -> None:
    lines = random_lines(60)
    lines[17] = " ".join(WORDS * 5)
    path = written(tmp_path / "some.txt", lines)
    assert made(path).space.max_length == 41
    lines[17] = " ".join(WORDS * 40)
    task = made(written(path, lines))
    assert task.space.max_length == 129
    rows = torch.cat([task.train, task.validation, task.test])
    assert len(rows) == 60 + 2 and int((rows > 1).sum()) == sum(len(line.split()) for line in lines)


def test_packed_text_is_the_same_text(tmp_path: Path) -> None:
    lines = random_lines(100)
    plain = made(written(tmp_path / "a.txt", lines))
    packed = made(written(tmp_path / "b.txt", gzip.compress("\r\n".join(lines).encode())))
    assert torch.equal(plain.train, packed.train) and torch.equal(plain.test, packed.test)


def test_the_least_text_can_be_measured(tmp_path: Path) -> None:
    class Latent:
        prior = posterior = None

    path = written(tmp_path / "some.txt", random_lines(20))
    record = api.run(f"text_file:{path}", "lstm_vae", track="smoke", out=tmp_path / "runs", overrides={"num_steps": 2})
    assert record.status == "done" and record.metrics[record.headline].n == 2
    assert "latents" not in record.unavailable and "kl.n2" in record.metrics
    words = written(tmp_path / "words.txt", [" ".join(WORDS * 80)])
    task = made(words, "stream")
    found = measure(task, Uniform(task.space.vocab_size), 0).merged.estimates["word_nats.exact"]
    assert found.n == 16 and found.stderr is not None and "16 blocks of 4 of 65 positions" in found.note


GOOD = "".join(f"{line}\n" for line in random_lines(30)).encode()
FAULTS = {
    "empty": (b"", "no text in it"),
    "blank": (b" \n\t\n \r\n" * 50, "no text in it"),
    "latin-1": (GOOD + "zwölf\n".encode("latin-1"), r"line 31 is not UTF-8 \(byte 0xf6 at place 3\): convert the file"),
    "utf-16": (GOOD.decode().encode("utf-16"), r"line 1 is not UTF-8 \(byte 0xff at place 1\)"),
    "utf-16, no mark": (GOOD.decode().encode("utf-16-le"), r"line 1 is no text \(byte 0x00 at place 2\)"),
    "binary": (GOOD + b"ash\xc3\xa4\0\1\n", r"line 31 is no text \(byte 0x00 at place 6\)"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"line 1 is not UTF-8 \(byte 0x89 at place 1\)"),
    "cut archive": (gzip.compress(GOOD)[:-9], "truncated or damaged gzip file"),
    "few lines": (b"ash oak\n\n" * 19, "19 lines that are not blank, where 20 sentences are expected: .*stream"),
    "one line": (b"ash oak " * 5000, "1 lines that are not blank, where 20 sentences are expected: .*stream"),
    "nothing twice": (b"".join(b"%d\n" % number for number in range(50)), "its training part: none of its words can"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_texts_are_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    content, message = FAULTS[fault]
    path = written(tmp_path / "some.txt", content)
    with pytest.raises(UserError, match=message) as caught:
        api.run(f"text_file:{path}", "unigram", track="smoke", out=tmp_path / "runs")
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").rglob("*.*")) and path.read_bytes() == content


def test_a_short_stream_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "some.txt", [" ".join(WORDS)] * 79)
    with pytest.raises(UserError, match="632 words between blanks, where 640 are expected: give a longer text"):
        made(path, "stream")
    assert made(path).test.shape[1] == 9


def test_sentences_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "some.txt", [*["ash"] * 98, " ".join(WORDS * 4), "oak"])
    assert made(path).space.max_length == 33
    monkeypatch.setattr(text_file_task, "MAX_PLACES", 80 * 33 - 1)
    with pytest.raises(UserError, match=r"some\.txt: 80 sentences in rows of 32 words .*--variant context=stream"):
        made(path)


TOO_MUCH = {"one line": (b"ash oak ", 12_500_000, "line 1 is longer than 10,000,000 bytes: break it into lines")}
TOO_MUCH |= {"many": (b"ash oak\n", 25_000_000, "longer than 100,000,000 bytes: give a part of it")}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_text_is_refused_before_it_is_read(tmp_path: Path, what: str) -> None:
    words, times, message = TOO_MUCH[what]
    path = written(tmp_path / "some.txt", words * times)
    tracemalloc.start()
    try:
        for context in ("sentence", "stream"):
            with pytest.raises(UserError, match=message):
                made(path, context)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        path.unlink()
    assert peak < 40_000_000


def test_the_default_text_is_ours_and_always_the_same() -> None:
    lines = default_text()
    assert lines == default_text() and lines[0] == "the garden paints the quiet mountain"
    assert min(len(line.split()) for line in lines) == 5 and max(len(line.split()) for line in lines) <= 12
    task = made("")
    assert task.space.vocab_size == 3 + len(set(" ".join(lines).split())) - 1  # the rarest word is <unk>
    made("", "stream").space.validate(made("", "stream").validation)
