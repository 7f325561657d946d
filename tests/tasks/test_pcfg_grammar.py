"""Deterministic grammars: derivations, probabilities, closed forms, lengths, against enumeration and nltk's parser."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.tasks.language.pcfg.grammar import NO_RULE, Grammar, Rule
from gmbench.tasks.language.pcfg.grammars import WEIGHTS, closers, language, probabilities, skeleton
from gmbench.tasks.language.pcfg.moments import lengths, moments

SMALL = WEIGHTS["small"][0]


def tiny() -> tuple[Grammar, Tensor]:
    """Four words, nesting, and an end that is not certain: S -> a S T | b, T -> c | d T T, Z -> a S Z | end."""
    rules = [
        Rule("S", "a", ("S", "T")), Rule("S", "b"), Rule("T", "c"), Rule("T", "d", ("T", "T")),
        Rule("Z", "a", ("S", "Z")), Rule("Z", ""),
    ]  # fmt: skip
    return Grammar(rules, ("S", "Z")), torch.tensor([0.3, 0.7, 0.8, 0.2, 0.25, 0.75], dtype=torch.float64)


def by_hand(grammar: Grammar, theta: Tensor, row: list[int]) -> float:
    """log p of one row by a stack of names."""
    stack, total = list(reversed(grammar.start)), 0.0
    for position, token in enumerate(row):
        if not stack:
            return total if not any(row[position:]) else -math.inf
        word = "" if token == 1 else "<pad>" if token == 0 else grammar.words[token - 2]
        fitting = [index for index, rule in enumerate(grammar.rules) if (rule.head, rule.word) == (stack[-1], word)]
        if not fitting:
            return -math.inf
        stack.pop()
        stack += reversed(grammar.rules[fitting[0]].body)
        total += math.log(theta[fitting[0]])
    return total if not stack else -math.inf


def log_prob(grammar: Grammar, theta: Tensor, x: Tensor) -> Tensor:
    parsed = grammar.parse(x)
    log_p = torch.where(parsed.rules == NO_RULE, 0.0, theta.log()[parsed.rules.clamp(min=0)]).sum(1)
    return torch.where(parsed.complete, log_p, -math.inf)


def test_the_closed_forms_are_those_of_the_reference() -> None:
    found = moments(skeleton(), probabilities(skeleton(), SMALL))
    assert found.entropy == pytest.approx(17.5683, abs=5e-5)
    assert found.mean_length == pytest.approx(10.355, abs=5e-4)
    assert found.perplexity == pytest.approx(5.4557, abs=5e-5)
    assert found.spectral_radius == pytest.approx(0.731, abs=5e-4)
    assert found.entropy / found.mean_length == pytest.approx(1.6967, abs=5e-5)
    assert len(skeleton().words) == 44
    of_classes = [moments(skeleton(), theta).entropy for theta in language("classes", 256).theta]
    assert sum(of_classes) / 4 == pytest.approx(17.2835, abs=5e-5)


def test_every_short_sentence_of_a_tiny_language_is_enumerated() -> None:
    grammar, theta = tiny()
    most = 7
    by_length, nats = torch.zeros(most + 1, dtype=torch.float64), torch.zeros(most + 1, dtype=torch.float64)
    for num in range(1, most + 1):
        words = torch.tensor(list(itertools.product(range(2, 6), repeat=num)))
        x = torch.cat([words, torch.ones(len(words), 1, dtype=torch.long), torch.zeros(len(words), 2).long()], 1)
        log_p = log_prob(grammar, theta, x)
        some = torch.randperm(len(x), generator=rng(num))[:60]
        likely = log_p.argsort(descending=True)[:40]
        for row in torch.cat([some, likely]).tolist():
            assert float(log_p[row]) == pytest.approx(by_hand(grammar, theta, x[row].tolist()))
        by_length[num] = log_p.exp().sum()
        nats[num] = -torch.xlogy(log_p.exp(), log_p.exp()).sum()
    found = lengths(grammar, theta, most)
    assert torch.allclose(found.mass, by_length, atol=1e-12) and found.mass[3] > 0
    assert torch.allclose(found.nats, nats, atol=1e-12)
    all_of_it, closed = lengths(grammar, theta, 600), moments(grammar, theta)
    assert float(all_of_it.mass.sum()) == pytest.approx(1, abs=1e-9)
    assert float(all_of_it.nats.sum()) == pytest.approx(closed.entropy, abs=1e-7)
    assert float(all_of_it.mass @ torch.arange(601.0).double()) == pytest.approx(closed.mean_length, abs=1e-7)


@pytest.mark.parametrize("name", ["small", "deep", "classes"])
def test_what_the_longest_row_leaves_out_is_negligible(name: str) -> None:
    truth = language(name, 256)
    assert 0 <= truth.lost < 2e-7
    assert -math.log1p(-truth.lost) < 1e-5  # nats a sentence by which log p is too low
    unlimited = sum(one.entropy for one in truth.moments) / len(truth.moments)
    assert 0 <= unlimited - truth.entropy_given_class < 1e-4
    assert 0 <= sum(one.mean_length for one in truth.moments) / len(truth.moments) - truth.mean_length < 1e-4
    short = language(name, 24)  # a limit that matters is conditioned on exactly
    x = short.sample(20_000, rng=rng(3))
    words = (x > 1).sum(1).double()
    assert short.lost > 0.03 and bool((x == 1).sum(1).eq(1).all())
    assert abs(float(words.mean()) - short.mean_length) < 4 * float(words.std()) / len(x) ** 0.5
    if name != "classes":
        kept = -(short.log_prob(x) - math.log1p(-short.lost))
        assert abs(float(kept.mean()) - short.entropy_given_class) < 4 * float(kept.std()) / len(x) ** 0.5


def test_samples_have_the_probabilities_of_the_rules() -> None:
    grammar, theta = tiny()
    x = grammar.draw(theta[None], torch.zeros(30_000, dtype=torch.long), 64, rng=rng(1))
    parsed = grammar.parse(x)
    assert bool(parsed.complete.all())
    counts = parsed.rules[parsed.rules != NO_RULE].bincount(minlength=6).double()
    for head in range(3):
        own = grammar.heads == head
        total = counts[own].sum()
        z = (counts[own] / total - theta[own]) / (theta[own] * (1 - theta[own]) / total).sqrt()
        assert float(z.abs().max()) < 4.5
    rows = Counter(tuple(row) for row in x.tolist())
    for row, count in rows.most_common(8):
        p = math.exp(by_hand(grammar, theta, list(row)))
        assert abs(count / 30_000 - p) < 4.5 * (p / 30_000) ** 0.5
    again = grammar.draw(theta[None], torch.zeros(30_000, dtype=torch.long), 64, rng=rng(1))
    assert torch.equal(x, again)


def test_the_probabilities_are_those_of_nltks_parser() -> None:
    from nltk import PCFG, Nonterminal, ProbabilisticProduction
    from nltk.parse import InsideChartParser

    truth = language("small", 256)
    productions = [
        ProbabilisticProduction(
            Nonterminal(rule.head), [rule.word, *(Nonterminal(name) for name in rule.body)], prob=float(p)
        )
        for rule, p in zip(truth.grammar.rules, truth.theta[0], strict=True)
        if rule.word
    ]
    parser = InsideChartParser(PCFG(Nonterminal("S"), productions))
    x = truth.sample(40, rng=rng(5))
    words = (x > 1).sum(1)
    x = torch.cat([x[words == length][:1] for length in words.unique()[:3]])
    assert len(x) == 3 and int((x > 1).sum(1).max()) < 12
    for text, log_p in zip(truth.space.text(x), truth.log_prob(x).tolist(), strict=True):
        trees = list(parser.parse(text.split()))
        assert len(trees) == 1  # unambiguous
        assert math.log(trees[0].prob()) == pytest.approx(log_p)


def test_monte_carlo_agrees_with_the_closed_forms() -> None:
    for name in ("small", "deep"):
        truth = language(name, 256)
        x = truth.sample(10_000, rng=rng(2))
        truth.space.validate(x)
        log_p = truth.log_prob(x)
        assert abs(float(-log_p.mean()) - truth.entropy_given_class) < 4 * float(log_p.std()) / 100
        words = (x > 1).sum(1).double()
        assert abs(float(words.mean()) - truth.mean_length) < 4 * float(words.std()) / 100


def test_what_is_no_sentence_has_no_probability() -> None:
    truth = language("small", 256)
    words = truth.space.words
    sentence = "o1 n1 v1 c1 . </s>"

    def row(text: str) -> Tensor:
        x = torch.zeros(1, 256, dtype=torch.long)
        ids = [words.index(word) for word in text.split()]
        x[0, : len(ids)] = torch.tensor(ids)
        return x

    assert float(truth.log_prob(row(sentence))) > -10
    for wrong in (
        "o1 n1 v1 c2 . </s>",  # disagrees
        "o1 n1 v1 . </s>",
        "o1 n1 v1 c1 </s>",
        "o1 n1 v1 c1 . o1 n1 v1 c1 . </s>",
        "n1 v1 </s>",
        "</s>",
    ):
        assert float(truth.log_prob(row(wrong))) == -math.inf, wrong
        assert not bool(truth.grammar.parse(row(wrong)).complete)
    by_token = truth.token_log_prob(row("o1 n1 v1 c2 . </s>"))[0]
    assert bool(by_token[:3].isfinite().all()) and float(by_token[3]) == -math.inf


def test_grammars_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="two rules of S begin with 'a'"):
        Grammar([Rule("S", "a"), Rule("S", "a", ("S",))], ("S",))
    with pytest.raises(ValueError, match="no rule for the symbols T"):
        Grammar([Rule("S", "a", ("T",))], ("S",))
    grammar = Grammar([Rule("S", "a", ("S", "S")), Rule("S", "b")], ("S",))
    with pytest.raises(ValueError, match="spectral radius"):
        moments(grammar, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="rules of S do not sum to 1"):
        moments(grammar, torch.tensor([0.4, 0.5]))
    with pytest.raises(ValueError, match="goes on after the end"):
        lengths(Grammar([Rule("S", "", ("S",)), Rule("S", "a")], ("S",)), torch.tensor([0.4, 0.6]), 5)


def test_deep_depends_on_what_is_further_back() -> None:
    from gmbench.tasks.language.pcfg.agreement import distances

    quantiles = []
    for name in ("small", "deep"):
        truth = language(name, 256)
        far = distances(truth.grammar, truth.sample(5000, rng=rng(4)), closers(truth.grammar))
        quantiles.append(far[far > 0].double().quantile(torch.tensor([0.5, 0.95]).double()).tolist())
    assert quantiles[0] == [5, pytest.approx(20, abs=1.5)]  # as in the reference
    assert quantiles[1] == [9, pytest.approx(37, abs=2)]
