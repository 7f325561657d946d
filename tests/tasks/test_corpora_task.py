"""The corpus tasks on tiny files: every number of models whose probabilities are known in closed form."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.errors import MissingCapability, UserError
from gmbench.measuring import Measured, measure
from gmbench.model import Likelihood, TokenCounts
from gmbench.plugin import DataFile, TaskCard
from gmbench.published import read_published
from gmbench.record import sha256_of
from gmbench.registry import discover
from gmbench.task import Task

NAMES = ("ptb", "wikitext2", "snli", "yahoo", "yelp")
REGISTRY = discover()
TRAIN = ["the cat sat", "the dog <unk> the cat", "a dog sat", "the cat <unk>", "the dog"]
TEST = ["the cat <unk> a dog", "sat", "the the the", "dog a cat sat", "cat sat the dog", "a"]
VOCAB = 8  # PAD EOS <unk> the cat dog sat a
WORDS = 18  # of TEST


def card_of(name: str) -> TaskCard:
    card = REGISTRY.task(name).card
    assert isinstance(card, TaskCard)
    return card


def made(
    name: str,
    variant: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *files: list[str],
    budget: dict[str, int] | None = None,
    **protocol: Any,
) -> Task:
    """The task on other files, with another protocol."""
    monkeypatch.setenv("GMBENCH_DATA", str(folder))
    card, entries = card_of(name), []
    for number, lines in enumerate(files):
        path = folder / f"{number}.txt.gz"
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
        entries.append(DataFile(path=path.name, sha256=sha256_of(path)))
    track = card.tracks["smoke"]
    track = track.model_copy(update={"measure": track.measure | (budget or {})})
    changed = {"data": entries, "protocol": card.protocol | protocol, "tracks": {"smoke": track}}
    card = card.model_copy(update=changed)
    task: Task = REGISTRY.task(name).load()(card, card.variant(variant).factors, "smoke")
    return task


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    return made("ptb", "context=sentence", tmp_path, monkeypatch, TRAIN, TRAIN[:2], TEST, vocab_size=VOCAB, max_words=5)


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    sizes = {"vocab_size": VOCAB, "window": 6, "stride": 2, "block": 5}
    return made("ptb", "context=stream", tmp_path, monkeypatch, TRAIN, TRAIN[:2], TEST, **sizes)


class Unigram:
    """Tokens that do not depend on each other, with the training text's frequencies, or all equally likely."""

    likelihood = Likelihood()

    def __init__(self, task: Task, *, uniform: bool = False) -> None:
        train = task.data(0).fixed
        counts = train.flatten().bincount(minlength=VOCAB).double() + 0.5
        counts = torch.ones(len(counts), dtype=torch.float64) if uniform else counts
        counts[0] = 0
        self.log_p = (counts / counts.sum()).log()
        self.calls = 0

    def token_log_prob(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.log_p[x].masked_fill(x == 0, 0.0).float()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        return self.log_prob(x, rng=Generator())


class Latent:
    """Words that do not depend on the latent, whose q(z | x) = N(mean, std²) is known not to be p(z) = N(0, 1)."""

    def __init__(self, words: Unigram, mean: float = 0.7, std: float = 0.5) -> None:
        self.words, self.mean, self.std = words, mean, std

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def posterior(self, x: Tensor) -> Distribution:
        ones = torch.ones(len(x), 2)
        return Independent(Normal(self.mean * ones, self.std * ones), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.words.token_log_prob(x).sum(1).expand(z.shape[:2])

    @property
    def kl(self) -> float:
        return 2 * ((self.mean**2 + self.std**2 - 1) / 2 - math.log(self.std))


class Reader:
    """Gives every byte of a text, and its end, a nat."""

    def score_text(self, texts: list[str]) -> Tensor:
        self.texts = texts
        return -torch.tensor([len(text.encode()) + 1.0 for text in texts], dtype=torch.float64)

    def count_tokens(self, texts: list[str]) -> TokenCounts:
        """Every byte is half a token."""
        return TokenCounts("bytes", torch.tensor([2 * len(text.encode()) + 2 for text in texts]))


def values(found: Measured) -> dict[str, float]:
    return {key: one.value for key, one in found.merged.estimates.items()}


def by_hand(log_p: Tensor, words: tuple[str, ...]) -> float:
    ids = {word: number for number, word in enumerate(words)}
    return -sum(float(log_p[[*(ids[word] for word in line.split()), 1]].sum()) for line in TEST)


def test_a_unigram_model_of_sentences_has_its_numbers(sentences: Task) -> None:
    model = Unigram(sentences)
    assert sentences.space.words[:] == ("<pad>", "<eos>", "<unk>", "the", "cat", "dog", "sat", "a")
    total = by_hand(model.log_p, sentences.space.words[:])
    found = measure(sentences, model, 0)
    got = values(found)
    assert got["word_nats.exact"] == pytest.approx(total / (WORDS + 6))
    assert got["word_perplexity.exact"] == pytest.approx(math.exp(total / (WORDS + 6)))
    assert got["nll.exact"] == pytest.approx(total / 6)
    num_bytes = sum(len(line.encode()) + 1 for line in TEST)
    assert got["bits_per_byte.exact"] == pytest.approx(total / num_bytes / math.log(2))
    assert got["pseudo_perplexity"] == pytest.approx(got["word_perplexity.exact"])
    assert found.merged.headline == "word_nats.exact" and found.merged.per_point.shape == (6,)
    assert float(found.merged.per_point.mean()) == pytest.approx(got["word_nats.exact"], rel=1e-6)
    assert found.merged.per_point.dtype == torch.float32
    assert all(one.stderr is not None and one.stderr > 0 for one in found.merged.estimates.values())
    assert "latents" in found.unavailable
    assert model.calls == 2  # one log p for the five numbers, one for the pseudo-likelihood


def test_a_uniform_model_has_as_many_words_as_it_chooses_from(sentences: Task, stream: Task) -> None:
    for task in (sentences, stream):
        got = values(measure(task, Unigram(task, uniform=True), 0))
        assert got["word_perplexity.exact"] == pytest.approx(VOCAB - 1, rel=1e-6)


def test_long_lines_are_cut_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = made("ptb", "context=sentence", tmp_path, monkeypatch, TRAIN, TRAIN, TEST, vocab_size=VOCAB, max_words=2)
    num_pieces = sum(-(-len(line.split()) // 2) for line in TEST)
    assert task.test.shape == (num_pieces, 3) and int((task.test > 1).sum()) == WORDS  # type: ignore[attr-defined]
    got = values(measure(task, Unigram(task, uniform=True), 0))
    assert got["word_nats.exact"] == pytest.approx(math.log(VOCAB - 1))
    assert got["nll.exact"] == pytest.approx(math.log(VOCAB - 1) * (WORDS + num_pieces) / num_pieces)


def test_a_stream_is_scored_token_by_token(stream: Task) -> None:
    model = Unigram(stream)
    total = by_hand(model.log_p, stream.space.words[:])
    found = measure(stream, model, 0)
    got = values(found)
    assert got["word_nats.exact"] == pytest.approx(total / (WORDS + 6), rel=1e-6)
    num_bytes = sum(len(line.encode()) + 1 for line in TEST)
    assert got["bits_per_byte.exact"] == pytest.approx(total / num_bytes / math.log(2))
    assert found.merged.per_point.shape == (24,)  # a sixteenth of so short a text is one position
    assert float(found.merged.per_point.mean()) == pytest.approx(got["word_nats.exact"], rel=1e-6)
    assert "a stream is one text" in found.unavailable["nll"]
    assert "context=sentence" in found.unavailable["pseudo_perplexity"]
    declined = measure(stream, Latent(model), 0)
    assert not declined.merged.headline and "needs token_log_prob or score_text" in declined.unavailable["word_nats"]


def test_windows_to_fit_are_of_the_stream(stream: Task) -> None:
    data = stream.data(0)
    text = stream.corpus.train.ids  # type: ignore[attr-defined]
    assert data.fixed.flatten().tolist() == text[: data.fixed.numel()].tolist() and len(text) - data.fixed.numel() < 6
    stream.space.validate(data.fixed)
    stream.space.validate(data.validation)
    everywhere = {tuple(text[begin : begin + 6].tolist()) for begin in range(len(text) - 5)}
    assert {tuple(row) for row in data.draw(500, torch.Generator().manual_seed(0)).tolist()} == everywhere


def test_a_latent_model_is_bounded_and_taken_apart(sentences: Task) -> None:
    words = Unigram(sentences)
    latent = Latent(words)
    exact, found = values(measure(sentences, words, 0)), measure(sentences, latent, 0)
    got = values(found)
    assert found.merged.headline == "word_nats.iw5"
    assert found.merged.estimates["word_nats.iw5"].kind == "upper_bound"
    assert got["kl.n6"] == pytest.approx(latent.kl)
    assert got["nll.elbo"] == pytest.approx(exact["nll.exact"] + latent.kl)  # p(x | z) = p(x): no noise is left
    assert got["word_nats.elbo"] == pytest.approx(exact["word_nats.exact"] + 6 * latent.kl / (WORDS + 6))
    assert got["reconstruction.nats"] == pytest.approx(exact["nll.exact"], rel=1e-6)
    assert exact["nll.exact"] < got["nll.iw5"] < got["nll.elbo"]
    assert got["active_units.above0.01.n6"] == 0 and got["mutual_information.log_n.n6"] == pytest.approx(math.log(6))
    assert got["mutual_information.lower.n6"] == pytest.approx(0, abs=1e-6)
    same = values(measure(sentences, Latent(words, 0.0, 1.0), 0))
    assert same["word_nats.iw5"] == pytest.approx(exact["word_nats.exact"], rel=1e-6)


class Wavering(Latent):
    """Its posterior is as wide of the prior as the sentence begins: sentences that begin alike have the same KL."""

    def posterior(self, x: Tensor) -> Distribution:
        return Independent(Normal(torch.zeros(len(x), 2), 1 / x[:, :1].expand(-1, 2).float()), 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """All of it where it begins with `the`, nothing of it otherwise."""
        return torch.where((x[:, :1] == 3) | (x < 2), x, 2)


def test_lines_that_follow_each_other_are_no_more_draws_for_latents(tmp_path: Path, monkeypatch: Any) -> None:
    text = [line for begin in ("the", "dog") * 20 for line in 3 * [f"{begin} cat sat the dog"]]
    ends = {"vocab_size": VOCAB, "max_words": 5, "budget": {"num_test": 120}}
    alone, together = (
        made("ptb", "context=sentence", tmp_path, monkeypatch, TRAIN, TRAIN[:2], text, **ends, lines_per_draw=lines)
        for lines in (1, 3)
    )
    one, other = (measure(task, Wavering(Unigram(task)), 0).merged.estimates for task in (alone, together))
    for key in ("kl.n120", "reconstruction.bleu4"):
        assert one[key].value == pytest.approx(other[key].value) and (one[key].n, other[key].n) == (120, 40)
        assert (other[key].stderr or 0) / (one[key].stderr or 1) == pytest.approx(3**0.5, rel=0.02)
    for bound in ("lower", "upper"):
        assert "takes sentences for independent draws" in other[f"mutual_information.{bound}.n120"].note


class Copier:
    """Rebuilds a sentence with its first `num_right` words, and repeats one training sentence as its sample."""

    def __init__(self, task: Task, num_right: int) -> None:
        self.sentence, self.num_right = task.data(0).fixed[1:2], num_right  # the dog <unk> the cat

    def reconstruct(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        return torch.where((places >= self.num_right) & (x > 1), 2, x)

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        return self.sentence.expand(num, -1)


def test_sentences_that_are_rebuilt_and_samples_that_repeat_each_other(sentences: Task) -> None:
    found = [values(measure(sentences, Copier(sentences, num), 0)) for num in (5, 4, 0)]
    bleus = [one["reconstruction.bleu4"] for one in found]
    assert bleus[0] == 1 > bleus[1] > bleus[2] == 0
    got = found[0]
    assert got["diversity.self_bleu4.refs20"] == pytest.approx(1) and got["diversity.self_bleu4.refs4.train"] < 0.7
    words = [text.split() for text in TRAIN]
    of_train = len({word for text in words for word in text}) / sum(map(len, words))
    assert got["diversity.distinct1.n5.train"] == pytest.approx(of_train)
    assert got["diversity.distinct1.n60"] < 0.1 < got["diversity.distinct1.n5.train"]


def test_every_number_of_a_bound_is_of_the_same_draws(sentences: Task) -> None:
    found = values(measure(sentences, Latent(Unigram(sentences)), 3))
    assert found["word_nats.iw5"] * (WORDS + 6) == pytest.approx(found["nll.iw5"] * 6, rel=1e-12)
    assert math.log(found["word_perplexity.iw5"]) == pytest.approx(found["word_nats.iw5"], rel=1e-12)
    again = values(measure(sentences, Latent(Unigram(sentences)), 3))
    assert found == again != values(measure(sentences, Latent(Unigram(sentences)), 4))


def test_a_model_of_text_is_given_the_text_as_it_counts(sentences: Task) -> None:
    model = Reader()
    got = values(measure(sentences, model, 0))
    assert sorted(model.texts) == sorted(TEST)
    assert got["bits_per_byte.text"] == pytest.approx(1 / math.log(2))
    assert got["token_perplexity.text.bytes"] == pytest.approx(math.exp(0.5))
    assert "word_nats.exact" not in got and "token_perplexity" in measure(sentences, Unigram(sentences), 0).unavailable
    kinds = {key: one.kind for key, one in measure(sentences, model, 0).merged.estimates.items()}
    assert set(kinds.values()) == {"upper_bound"}  # the text may be split in other ways


def test_a_model_of_text_reads_a_stream_block_by_block(stream: Task, tmp_path: Path, monkeypatch: Any) -> None:
    model = Reader()
    found = measure(stream, model, 0)
    assert [text for text in model.texts if text] == " ".join(TEST).split()  # blocks of one token, some of them ends
    longer = made(
        "ptb", "context=stream", tmp_path, monkeypatch, TRAIN, TRAIN[:2], 20 * TEST,
        budget={"num_test_tokens": 480}, vocab_size=VOCAB, window=6, stride=2, block=12,
    )  # fmt: skip
    found = measure(longer, model, 0)
    first, second = "the cat <unk> a dog\nsat\nthe the the", "dog a cat sat\ncat sat the dog\na"
    assert model.texts == 20 * [first, second]
    got = values(found)
    assert got["bits_per_byte.text"] == pytest.approx(1 / math.log(2))  # a block ends with a line: its end is a byte
    num_bytes = 20 * sum(len(line.encode()) + 1 for line in TEST)
    assert got["word_nats.text"] == pytest.approx(num_bytes / 480)
    assert got["token_perplexity.text.bytes"] == pytest.approx(math.exp(0.5))
    assert found.merged.per_point.shape == (40,)
    assert float(found.merged.per_point.mean()) == pytest.approx(got["word_nats.text"], rel=1e-6)
    assert found.merged.estimates["word_nats.text"].stderr is not None


def test_impossible_sentences_cost_infinitely_much(sentences: Task) -> None:
    model = Unigram(sentences)
    model.log_p[4] = -math.inf
    found = measure(sentences, model, 0)
    one = found.merged.estimates["word_nats.exact"]
    assert math.isinf(one.value) and "3 of 6 sentences have probability 0" in one.note


def test_unknown_words_of_other_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (["a b _UNK a"] * 1200, ["b new _UNK", "a"])
    task = made("yahoo", "train=from_valid", tmp_path, monkeypatch, *files, vocab_size=5, max_words=4)
    assert len(task.data(0).fixed) == 200
    assert task.data(0).fixed[0].tolist() == [3, 4, 2, 3, 1]
    text = task.space.text(task.test)  # type: ignore[attr-defined]
    assert text == ["a", "b <unk> <unk>"]
    assert task.units.utf8.tolist() == [2, 14]  # type: ignore[attr-defined]


def test_an_unknown_word_without_a_word_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = (["a b"], ["a"], ["a b c"])
    task = made("ptb", "context=sentence", tmp_path, monkeypatch, *files, vocab_size=5, max_words=4)
    with pytest.raises(UserError, match=r"2\.txt\.gz: 1 of its 3 words are not among the training text's, 'c' first"):
        task.data(0)


def test_ratings_are_classes_that_features_may_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    ratings = torch.multinomial(torch.tensor([0.1, 0.1, 0.2, 0.4, 0.2]), 1500, replacement=True, generator=rng)
    noise = torch.randint(0, 4, (1500, 2), generator=rng)
    pairs = zip(ratings.tolist(), noise.tolist(), strict=True)
    lines = [f"{rating} w{a} mark{rating} w{b}" for rating, (a, b) in pairs]
    budget = {"num_labelled_test": 300, "num_label_draws": 3}
    protocol = {"vocab_size": 12, "max_words": 4, "labels_per_class": [2, 10]}
    task = made("yelp", "", tmp_path, monkeypatch, lines[:1200], lines[1200:], budget=budget, **protocol)
    data = task.data(0)
    assert data.num_classes == 5 and data.draw_labelled is not None
    x, classes = data.draw_labelled(300, torch.Generator().manual_seed(1))
    assert torch.equal(x, data.draw(300, torch.Generator().manual_seed(1)))
    mark = torch.tensor([int(text.split()[1].removeprefix("mark")) for text in data.space.text(x)])
    assert torch.equal(mark, classes)

    class Encoder:
        def __init__(self, column: int) -> None:
            self.column = column

        def encode(self, x: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(x[:, self.column], 12).float()

    tells, blind = (values(measure(task, Encoder(column), 0)) for column in (1, 0))
    share = float((ratings[1200:] == 3).double().mean())
    assert tells["low_resource.majority"] == pytest.approx(share)
    for key in ("2perclass", "10perclass"):
        assert tells[f"low_resource.{key}"] == 1.0 > 0.45 > blind[f"low_resource.{key}"]
        assert tells[f"low_resource.words.{key}"] == blind[f"low_resource.words.{key}"] > 0.6
    error = measure(task, Encoder(0), 0).merged.estimates["low_resource.10perclass"].stderr
    assert error is not None and (0.2 * 0.8 / 300) ** 0.5 * 0.5 < error < 0.15


@pytest.mark.parametrize("name", NAMES)
def test_without_its_files_a_task_has_a_space_and_says_what_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMBENCH_DATA", str(tmp_path))
    monkeypatch.setattr("gmbench.data.local.cache_folder", lambda: tmp_path / "cache")

    def no_network(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("pooch.retrieve", no_network)
    card = card_of(name)
    for variant in card.variants:
        task = REGISTRY.task(name).load()(card, variant.factors, "smoke")
        assert task.space.vocab_size == card.protocol["vocab_size"] == len(task.space.words)
        assert task.space.ends == (variant.factors["context"] == "sentence")
        for ask in (lambda task=task: task.data(0), lambda task=task: task.space.words[3]):
            with pytest.raises(UserError, match=r"\.gz could not be downloaded from .*GMBENCH_DATA"):
                ask()


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp"])
def test_quoted_perplexities_say_what_they_are(name: str) -> None:
    rows = read_published(REGISTRY.task(name).folder, card_of(name)).row
    assert rows
    for row in rows:
        assert "perplexity" in row.metric and row.metric not in card_of(name).metrics
        assert "secondary" in row.note or row.model.startswith(("RegaVAE", "AWD-LSTM"))
        assert row.variant != "context=stream" or "whole text" in row.note
        assert ("n+2" in row.note) == row.model.startswith("Optimus")
        assert name == "ptb" or "another Yelp set" in row.note or "official training set" in row.note
    assert not {"n+2", "byte-pair"} - set(card_of(name).notes.replace(",", "").split())


def test_models_that_decline_are_told_why(sentences: Task) -> None:
    with pytest.raises(MissingCapability, match="needs token_log_prob or log_prob or score_text"):
        sentences.measure("word_nats", object(), None)  # type: ignore[arg-type]


def test_two_tasks_of_one_corpus_have_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that starts from another one's run was trained on another instance of the task."""
    first, again = (made("ptb", "context=sentence", tmp_path, monkeypatch, TRAIN, TRAIN[:2], TEST, vocab_size=VOCAB,
                         max_words=5) for _ in range(2))  # fmt: skip
    assert first.space.words is not again.space.words and first.space == again.space  # type: ignore[attr-defined]
    assert hash(first.space) == hash(again.space)
    other = [line.replace("cat", "cow") for line in TRAIN]
    folder = tmp_path / "other"
    folder.mkdir()
    third = made("ptb", "context=sentence", folder, monkeypatch, other, other[:2], TEST, vocab_size=VOCAB, max_words=5)
    assert first.space != third.space


def test_draws_are_counted_in_lines_where_lines_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [" ".join(line.split() * 8) for line in TEST * 4]  # 24 lines, some of many pieces
    task: Any = made(
        "ptb", "context=sentence", tmp_path, monkeypatch, TRAIN, TRAIN[:2], long, vocab_size=VOCAB, max_words=5,
        budget={"num_test": 1000},
    )  # fmt: skip
    assert len(task.test) > 100 and len(task.units.draw.unique()) == 24
    one = measure(task, Unigram(task), 0).merged.estimates["word_nats.exact"]
    assert one.n == 24 and one.stderr is not None and "24 groups of consecutive lines" in one.note
