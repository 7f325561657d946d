"""Kneser-Ney n-grams: nltk's, the formulas with dictionaries, sums over the vocabulary, a known Markov source."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.ngram_kneser_ney.counting import count_ngrams
from gmbench.baselines.autoregressive.ngram_kneser_ney.lookup import token_probs
from gmbench.baselines.autoregressive.ngram_kneser_ney.model import NGramKneserNey
from gmbench.baselines.autoregressive.ngram_kneser_ney.smoothing import adjusted_counts, discounts, kneser_ney
from gmbench.errors import MissingCapability
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Trainer

PAD, EOS, V, T = 0, 1, 9, 12
SPACE = TokenSequence(V, T)
STREAM = TokenSequence(V, T, ends=False)


def build(space: TokenSequence, **changes: Any) -> NGramKneserNey:
    return from_card(NGramKneserNey, space, "pcfg", **changes)


def corpus(num: int, seed: int = 0, space: TokenSequence = SPACE) -> Tensor:
    """Sequences of a first-order source over the words 2 … 7 (8 never occurs), of 0 to T - 1 words."""
    generator = rng(seed)
    move = torch.softmax(2.5 * torch.randn(V, V, generator=rng(99)), 1)
    move[:, [PAD, V - 1]] = 0
    move[:, EOS] = 0 if not space.ends else 0.2
    x = torch.zeros(num, space.max_length, dtype=torch.int64)
    before = torch.full((num,), PAD)
    for t in range(space.max_length):
        before = torch.multinomial(move[before], 1, generator=generator)[:, 0]
        x[:, t] = before
    if not space.ends:
        return x
    x[~(x == EOS).any(1), -1] = EOS
    return torch.where((x == EOS).cumsum(1) - (x == EOS).long() > 0, PAD, x)


def data(train: Tensor, validation: Tensor, space: TokenSequence = SPACE) -> Data:
    return Data(space, train, lambda num, g: train[torch.randint(len(train), (num,), generator=g)], validation)


def fitted(train: Tensor, space: TokenSequence = SPACE, **changes: Any) -> NGramKneserNey:
    model = build(space, **changes)
    Trainer().fit(model, data(train, corpus(100, 7, space), space))
    return model


def sentences(x: Tensor) -> list[list[int]]:
    return [["<s>"] + [token for token in row if token != PAD] for row in x.tolist()]  # type: ignore[list-item]


class Dictionaries:
    """The same model as formulas over dictionaries, token by token."""

    def __init__(self, x: Tensor, order: int, given: list[list[float]]) -> None:
        self.order, self.given = order, given
        raw: list[Counter[tuple[Any, ...]]] = [Counter() for _ in range(order + 1)]
        before: list[dict[tuple[Any, ...], set[Any]]] = [defaultdict(set) for _ in range(order + 1)]
        for row in sentences(x):
            for end in range(1, len(row)):
                for length in range(1, min(order, end + 1) + 1):
                    gram = tuple(row[end - length + 1 : end + 1])
                    raw[length][gram] += 1
                    if end - length >= 0:
                        before[length][gram].add(row[end - length])
        self.followers: list[dict[tuple[Any, ...], dict[Any, int]]] = [defaultdict(dict) for _ in range(order + 1)]
        for length in range(1, order + 1):
            for gram, count in raw[length].items():
                full = length == order or gram[0] == "<s>"
                self.followers[length][gram[:-1]][gram[-1]] = count if full else len(before[length][gram])

    def adjusted(self, length: int) -> list[int]:
        return [a for after in self.followers[length].values() for a in after.values()]

    def prob(self, context: tuple[Any, ...], token: int) -> float:
        below = self.prob(context[1:], token) if context else 1 / (V - 1)
        after = self.followers[len(context) + 1].get(context)
        if not after:
            return below
        taken = {w: min(self.given[len(context)][min(a, 3) - 1], a) for w, a in after.items()}
        own = after.get(token, 0) - taken.get(token, 0.0)
        return (own + sum(taken.values()) * below) / sum(after.values())

    def row(self, x: list[int]) -> list[float]:
        row = ["<s>", *x]
        return [self.prob(tuple(row[max(0, t - self.order + 1) : t]), row[t]) for t in range(1, len(row))]  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [1, 2, 4, 14])
@pytest.mark.parametrize("space", [SPACE, STREAM])
def test_it_is_the_formulas_over_dictionaries(order: int, space: TokenSequence) -> None:
    train, test = corpus(40, 1, space), corpus(20, 2, space)
    test[0, :2] = torch.tensor([8, 8])  # never seen
    given = [[0.3 + 0.01 * k, 0.9, 2.9 - 0.1 * k] for k in range(order)]
    reference = Dictionaries(train, order, given)
    ngrams = count_ngrams(train, V, order)
    levels = kneser_ney(ngrams, order, [torch.tensor(d, dtype=torch.float64) for d in given])
    for a, length in zip(adjusted_counts(ngrams, order), range(1, order + 1), strict=True):
        assert sorted(a[a > 0].tolist()) == sorted(reference.adjusted(length))
    p = token_probs(levels, test)
    for found, row in zip(p, test.tolist(), strict=True):
        expected = reference.row([token for token in row if token != PAD])
        assert found[: len(expected)].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("order", "first"), [(2, 0), (3, 1), (4, 2)])
def test_it_is_nltks_where_the_context_is_full(order: int, first: int) -> None:
    """nltk discounts no unigrams, and has no counts for a context that is cut short by the start."""
    from nltk.lm import KneserNeyInterpolated
    from nltk.util import everygrams

    train, test, discount = corpus(30, 3), corpus(15, 4), 0.6
    rows = [[str(token) for token in row] for row in sentences(train)]
    library = KneserNeyInterpolated(order, discount=discount)
    library.fit([everygrams(row, max_len=order) for row in rows], vocabulary_text=[w for row in rows for w in row])
    given = [torch.full((3,), 0.0 if length == 1 else discount, dtype=torch.float64) for length in range(1, order + 1)]
    p = token_probs(kneser_ney(count_ngrams(train, V, order), order, given), test)
    compared = 0
    for found, row in zip(p.tolist(), sentences(test), strict=True):
        for t in range(first + 1, len(row)):
            context = tuple(str(w) for w in row[t - order + 1 : t])
            assert found[t - 1] == pytest.approx(library.score(str(row[t]), context), rel=1e-9, abs=1e-15)
            compared += 1
    assert compared > 30


@pytest.mark.parametrize("kind", ["one", "three"])
@pytest.mark.parametrize("space", [SPACE, STREAM])
def test_the_probabilities_of_all_tokens_sum_to_one(kind: str, space: TokenSequence) -> None:
    model = fitted(corpus(60, 5, space), space, orders=[4], discounts=kind)
    prefix = corpus(30, 6, space)
    prefix = prefix[(prefix[:, :4] > EOS).all(1)]
    prefix[0, 1] = 8
    assert len(prefix) > 5
    for position in range(5):
        x = prefix.repeat_interleave(V - 1, 0)
        x[:, position] = torch.arange(1, V).repeat(len(prefix))
        if space.ends:
            x[:, position + 1 :] = PAD
        p = model.token_log_prob(x)[:, position].double().exp().reshape(len(prefix), V - 1)
        torch.testing.assert_close(p.sum(1), torch.ones(len(prefix), dtype=torch.float64), rtol=0, atol=1e-6)
        assert float(p.min()) > 1e-7


def test_discounts_are_the_estimates_from_counts_of_counts() -> None:
    a = torch.tensor([0] * 5 + [1] * 40 + [2] * 20 + [3] * 12 + [4] * 6 + [9] * 3)
    y = 40 / 80
    assert discounts(a, "one").tolist() == pytest.approx([y] * 3)
    three = [1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 6 / 12]
    assert discounts(a, "three").tolist() == pytest.approx(three)
    assert discounts(torch.tensor([7, 8]), "one").tolist() == [0.5, 0.5, 0.5]
    assert discounts(torch.tensor([7, 8]), "three").tolist() == [0.5, 1.0, 1.5]
    assert discounts(torch.tensor([1] * 9 + [2] + [3] * 5 + [4]), "three").tolist() == [0.5, 1.0, 1.5]  # D_2 below 0


def test_the_entropy_of_a_known_source_is_reached_by_the_order_that_it_has() -> None:
    """Rows of a stream: x_t is x_t-1 + x_t-2 modulo 6 with probability .7 and else any of the six words."""

    def source(num: int, seed: int) -> Tensor:
        generator = rng(seed)
        words = torch.randint(6, (num, T), generator=generator)
        for t in range(2, T):
            kept = torch.rand(num, generator=generator) < 0.7
            words[:, t] = torch.where(kept, (words[:, t - 1] + words[:, t - 2]) % 6, words[:, t])
        return words + 2

    model = build(STREAM, orders=[1, 2, 3, 4], discounts="three")
    train, test = source(3000, 1), source(1000, 2)
    Trainer().fit(model, data(train, source(300, 3), STREAM))
    assert int(model.validation_nll.argmin()) == 2  # order 3
    rate = -float(model.token_log_prob(test)[:, 2:].double().mean())
    likely, other = 0.7 + 0.05, 0.05
    entropy = -likely * math.log(likely) - 5 * other * math.log(other)
    assert rate == pytest.approx(entropy, abs=0.03)
    assert float(model.validation_nll[1]) > entropy + 0.5  # pairs alone tell nothing


def test_samples_follow_the_probabilities() -> None:
    space = TokenSequence(5, 4)
    words = 2 + torch.randint(3, (40, 4), generator=rng(1)) * torch.randint(2, (40, 4), generator=rng(2))
    lengths = torch.randint(4, (40, 1), generator=rng(3))
    place = torch.arange(4)
    train = torch.where(place < lengths, words, torch.where(place == lengths, EOS, PAD))
    model = build(space, orders=[3], discounts="three")
    Trainer().fit(model, data(train, train, space))
    num = 20_000
    x = model.sample(num, rng=rng(4))
    space.validate(x)
    short = x[(x == EOS).int().argmax(1) < 3]  # at the last position the end is forced
    states, counts = torch.unique(short, dim=0, return_counts=True)
    expected = model.log_prob(states, rng=rng()).double().exp() * num
    common = expected > 5
    chi_square = float(((counts - expected).square() / expected)[common].sum())
    degrees = int(common.sum())
    assert degrees == 13 and chi_square < degrees + 5 * math.sqrt(2 * degrees)
    assert float(expected.sum()) == pytest.approx(len(short), rel=0.03)


def test_samples_of_a_stream_are_full() -> None:
    x = fitted(corpus(50, 5, STREAM), STREAM).sample(300, rng=rng())
    STREAM.validate(x)


def test_stored_tables_come_back_with_their_sizes() -> None:
    model = fitted(corpus(60, 5), orders=[2, 5])
    again = build(SPACE, orders=[2, 5])
    again.load_state_dict(load(save(dict(model.state_dict()))))
    test = corpus(20, 8)
    assert len(again.keys2) == len(model.keys2) > 0
    assert again.token_log_prob(test).equal(model.token_log_prob(test))
    with pytest.raises(RuntimeError, match="validation_nll"):
        build(SPACE, orders=[5]).load_state_dict(model.state_dict())
    before = float(build(SPACE).log_prob(test[:1], rng=rng()))
    assert before == pytest.approx(-math.log(V - 1) * int((test[0] != PAD).sum()), rel=1e-6)  # uniform before fit


def test_the_validation_likelihood_chooses_among_orders() -> None:
    train, validation = corpus(60, 5), corpus(100, 7)
    both = fitted(train, orders=[1, 5, 2])
    best = [fitted(train, orders=[order]) for order in (1, 5, 2)]
    nll = torch.cat([model.validation_nll for model in best])
    assert both.validation_nll.equal(nll)
    chosen = best[int(nll.argmin())]
    assert both.log_prob(validation, rng=rng()).equal(chosen.log_prob(validation, rng=rng()))
    rate = -both.token_log_prob(validation).double().sum() / (validation != PAD).sum()
    assert float(rate) == pytest.approx(float(nll.min()), abs=1e-6)


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_code(track: str) -> None:
    for task in ("pcfg", "ptb", "latent_language"):
        for preset in ("", "modified"):
            NGramKneserNey.Config(**card_of(NGramKneserNey).resolve(task, track, preset))
    assert {c for c in CAPABILITIES if offers(build(SPACE), c)} == set(card_of(NGramKneserNey).capabilities)


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        fitted(corpus(20)).sample(2, given=torch.tensor([0, 1]), rng=rng())
