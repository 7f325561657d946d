"""Rows, windows and units of text: nothing is lost, nothing counts twice, and a wrong denominator shows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gmbench.errors import UserError
from gmbench.metrics.perplexity import bits, perplexity
from gmbench.spaces import TokenSequence
from gmbench.tasks.language.corpora.corpus import Lines
from gmbench.tasks.language.corpora.sequences import rows, scoring_windows, stream_log_prob, windows
from gmbench.tasks.language.corpora.units import Units, of_sentences, of_stream, widths

CPU = torch.device("cpu")
WORDS = ("<pad>", "<eos>", "<unk>", "a", "the", "Äpfel", "東京")


def lines_of(sizes: list[int], seed: int = 0) -> Lines:
    rng = torch.Generator().manual_seed(seed)
    parts = [torch.cat([torch.randint(2, len(WORDS), (n,), generator=rng), torch.tensor([1])]) for n in sizes]
    return Lines(torch.cat(parts), torch.tensor(sizes))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.integers(1, 10))
def test_rows_hold_every_word_once_and_in_order(sizes: list[int], max_words: int) -> None:
    lines = lines_of(sizes)
    x, line_of = rows(lines, max_words)
    TokenSequence(len(WORDS), max_words + 1).validate(x)
    assert line_of.tolist() == [line for line, n in enumerate(sizes) for _ in range(-(-n // max_words))]
    begin = 0
    for line, n in enumerate(sizes):
        own = x[line_of == line]
        assert own[own > 1].tolist() == lines.ids[begin : begin + n].tolist()
        assert ((own > 1).sum(1)[:-1] == max_words).all()  # only the last piece is shorter
        begin += n + 1


def test_side_by_side_windows_follow_each_other() -> None:
    assert windows(torch.arange(2, 13), 4).tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]
    with pytest.raises(UserError, match="a text of 3 tokens, its ends of lines counted, has no window of 4"):
        windows(torch.arange(3), 4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.data())
def test_every_position_is_scored_once_with_enough_before_it(size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    num = data.draw(st.integers(size, 60))
    begins, seen = scoring_windows(num, size, stride)
    times = torch.zeros(num)
    for begin, known in zip(begins.tolist(), seen.tolist(), strict=True):
        assert 0 <= begin <= num - size
        assert begin == 0 or known >= size - stride
        times[begin + known : begin + size] += 1
    assert (times == 1).all() and seen[0] == 0 and len(begins) == 1 + math.ceil((num - size) / stride)


def test_too_short_a_stream_has_no_windows() -> None:
    with pytest.raises(UserError, match="has no window of 8"):
        scoring_windows(7, 8, 4)


def tokens(vocab: int, num: int) -> Tensor:
    return torch.randint(1, vocab, (num,), generator=torch.Generator().manual_seed(1))


class Chain:
    """A Markov chain of the given order on few tokens; at the beginning of a window, what is not there counts as 0."""

    def __init__(self, order: int, vocab: int = 5) -> None:
        table = torch.rand([vocab] * (order + 1), generator=torch.Generator().manual_seed(order)).double() + 0.05
        table[..., 0] = 0  # no padding
        self.order, self.log_p = order, (table / table.sum(-1, keepdim=True)).log()

    def token_log_prob(self, x: Tensor) -> Tensor:
        before = torch.cat([x.new_zeros(len(x), self.order), x], 1)
        return self.log_p[tuple(before[:, k : k + x.shape[1]] for k in range(self.order + 1))]


@pytest.mark.parametrize(("size", "stride", "order"), [(8, 5, 3), (8, 7, 1), (6, 2, 4), (100, 30, 2), (9, 1, 8)])
def test_a_stream_scores_a_chain_exactly_where_windows_reach_back_enough(size: int, stride: int, order: int) -> None:
    assert size - stride >= order
    chain, ids = Chain(order, 3 if order == 8 else 5), tokens(3, 1000)
    whole = chain.token_log_prob(ids[None])[0]
    found = stream_log_prob(chain.token_log_prob, ids, size, stride, CPU)
    assert torch.equal(found, whole)


def test_too_little_context_shows() -> None:
    chain, ids = Chain(3), tokens(5, 500)
    whole = chain.token_log_prob(ids[None])[0]
    found = stream_log_prob(chain.token_log_prob, ids, 8, 8, CPU)
    wrong = (found != whole).nonzero()[:, 0]
    assert set((wrong % 8).tolist()) == {0, 1, 2} and wrong.min() >= 8
    assert len(wrong) > 150


def test_bytes_are_those_of_the_text() -> None:
    lines = lines_of([3, 0, 1, 7, 0, 0, 2])
    width = widths(WORDS)
    text = ""
    for token in lines.ids.tolist():
        text = text.removesuffix(" ") + "\n" if token == 1 else text + WORDS[token] + " "
    stream = of_stream(lines.ids, width, block=4)
    assert int(stream.utf8.sum()) == len(text.encode()) and text.count("\n") == 7
    assert int(stream.words.sum()) == len(text.split()) + 7
    # as sentences: the three blank lines are none, and no cut adds or takes a byte
    for max_words in (3, 7):
        x, _ = rows(lines, max_words)
        units = of_sentences(x, width)
        assert int(units.utf8.sum()) == len(text.encode()) - 3
        assert int(units.words.sum()) == len(text.split()) + len(x)


def sentences(*lengths: int) -> Tensor:
    x = torch.zeros(len(lengths), max(lengths) + 1, dtype=torch.long)
    for row, n in enumerate(lengths):
        x[row, :n], x[row, n] = 3, 1
    return x


def test_a_uniform_model_has_its_vocabulary_as_perplexity_and_the_known_faults_show() -> None:
    """n words and EOS are n + 1 factors 1/V: V is the perplexity, whatever the lengths.

    Dividing by n + 2, as a start that is counted does, gives V^((n+1)/(n+2)): 30 prints as 23.5 at 12 words.
    """
    V, x = 30, sentences(*[12] * 40)
    units = of_sentences(x, widths(WORDS))
    nats = units.words * math.log(V)
    found = perplexity(units.rate(nats, units.words, "exact"))
    assert found.value == pytest.approx(V, abs=1e-9) and found.stderr == pytest.approx(0, abs=1e-9)
    assert units.words.tolist() == [13] * 40
    start_counted = perplexity(units.rate(nats, units.words + 1, "exact")).value
    assert start_counted == pytest.approx(V ** (13 / 14)) == pytest.approx(23.5, abs=0.05)
    end_dropped = perplexity(units.rate(nats - math.log(V), units.words, "exact")).value
    assert end_dropped == pytest.approx(V ** (12 / 13)) and abs(found.value - end_dropped) > 6
    mixed = of_sentences(sentences(3, 25, 25, 1, 12), widths(WORDS))
    assert perplexity(mixed.rate(mixed.words * math.log(V), mixed.words, "exact")).value == pytest.approx(V)


def test_one_log_p_gives_every_rate() -> None:
    x = rows(lines_of([4, 9, 1, 6, 2]), 9)[0]
    units = of_sentences(x, widths(WORDS))
    nats = torch.tensor([3.0, 30, 0, 7, 11.5], dtype=torch.float64)
    total = float(nats.sum())
    per_word, per_byte = (units.rate(nats, one, "lower_bound") for one in (units.words, units.utf8))
    assert per_word.value == pytest.approx(total / 27) and per_word.kind == "upper_bound"
    assert bits(per_byte).value == pytest.approx(total / float(units.utf8.sum()) / math.log(2))
    assert float(units.points(nats).mean()) == pytest.approx(per_word.value)
    assert perplexity(per_word).value == pytest.approx(math.exp(total / 27))


def test_points_of_a_stream_are_blocks_with_the_rate_as_mean() -> None:
    ids = lines_of([5] * 30).ids  # 180 positions
    units = of_stream(ids, widths(WORDS), block=50)
    nats = tokens(1000, 180).double() / 100
    points = units.points(nats)
    assert points.shape == (4,)  # the last is of 30 positions
    assert float(points.mean()) == pytest.approx(float(nats.mean()))
    rate = units.rate(nats, units.words, "exact")
    assert rate.value == pytest.approx(float(nats.mean())) and (rate.n, rate.stderr) == (3, None)
    assert "3 blocks of 50 of 180 positions: too few" in rate.note
    assert units.rate(nats, units.words, "exact") == rate
    short = Units(units.words, units.utf8, block=10).rate(nats, units.words, "exact")
    assert short.n == 18 and short.stderr is not None and short.value == pytest.approx(rate.value)
    longer = Units(units.words, units.utf8, block=181)
    with pytest.raises(ValueError, match="whole blocks"):
        longer.rate(nats, units.words, "exact")


def test_lines_that_follow_each_other_are_one_draw() -> None:
    """Texts of 10 lines that share a subject: the spread over lines says nothing of the mean's."""
    draw, means, found = torch.Generator().manual_seed(0), [], []
    words, together = torch.full((200,), 6.0, dtype=torch.float64), torch.arange(200) // 10
    for _ in range(200):
        subject = torch.randn(20, generator=draw, dtype=torch.float64).repeat_interleave(10)
        nats = 20 + subject + 0.3 * torch.randn(200, generator=draw, dtype=torch.float64)
        each, grouped = (Units(words, words, draw=one).rate(nats, words, "exact") for one in (None, together))
        assert each.value == pytest.approx(grouped.value) and (each.n, grouped.n) == (200, 20)
        points = Units(words, words, draw=together).points(nats)
        assert points.shape == (20,) and float(points.mean()) == pytest.approx(grouped.value)
        means.append(grouped.value)
        found.append((each.stderr, grouped.stderr))
    spread = float(torch.tensor(means).std())
    of_lines, of_draws = (sum(one) / len(found) / spread for one in zip(*found, strict=True))
    assert of_lines < 0.5 and 0.9 < of_draws < 1.1
    nats[3] = math.inf
    assert math.isinf(Units(words, words, draw=together).rate(nats, words, "exact").value)
