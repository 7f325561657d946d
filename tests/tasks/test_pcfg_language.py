"""The true language with and without classes: next-token probabilities, posteriors, information, pseudo-likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from building import rng
from gmbench.errors import UserError
from gmbench.tasks.language.pcfg.grammars import language
from gmbench.tasks.language.pcfg.language import Language

NAMES = ["small", "deep", "classes"]


def each_next(truth: Language, row: Tensor, position: int) -> Tensor:
    """p of every token after the first `position` ones of a row, (V,)."""
    x = row.repeat(truth.space.vocab_size, 1)
    x[:, position:] = 0
    x[:, position] = torch.arange(len(x))
    return torch.cat([torch.zeros(1).double(), truth.token_log_prob(x)[1:, position].exp()])  # nobody asks for padding


@pytest.mark.parametrize("name", NAMES)
def test_next_tokens_sum_to_one_and_make_up_log_p(name: str) -> None:
    truth = language(name, 256)
    x = truth.sample(200, rng=rng())
    by_token = truth.token_log_prob(x)
    assert torch.allclose(by_token.sum(1), truth.log_prob(x), atol=1e-10)
    assert not bool(by_token[x == 0].any()) and float(by_token.max()) <= 1e-12
    for row in x[:4]:
        for position in range(int((row > 0).sum())):
            p = each_next(truth, row, position)
            assert float(p.sum()) == pytest.approx(1, abs=1e-9)
            assert float(p[row[position]].log()) == pytest.approx(float(truth.token_log_prob(row[None])[0, position]))


def test_the_mixture_is_that_of_its_four_grammars() -> None:
    truth = language("classes", 256)
    x = truth.sample(300, rng=rng(1))
    each = torch.stack([Language(truth.grammar, theta[None], 256).log_prob(x) for theta in truth.theta], 1)
    assert torch.allclose(truth.log_prob(x), torch.logsumexp(each, 1) - math.log(4), atol=1e-10)
    p = each.exp() / each.exp().sum(1, keepdim=True)
    assert torch.allclose(truth.class_probabilities(x), p, atol=1e-10)
    # p(x_t | x_<t) = Σ_c p(c | x_<t) p(x_t | x_<t, c)
    each = torch.stack([Language(truth.grammar, theta[None], 256).token_log_prob(x) for theta in truth.theta], 2)
    ahead = torch.softmax(each.cumsum(1), 2)
    ahead = torch.cat([torch.full_like(ahead[:, :1], 0.25), ahead[:, :-1]], 1)
    assert torch.allclose(truth.token_log_prob(x), (ahead * each.exp()).sum(2).log(), atol=1e-9)


def test_information_and_bayes_accuracy_are_those_of_the_reference() -> None:
    truth = language("classes", 256)
    assert truth.entropy_given_class == pytest.approx(17.2835, abs=5e-5)
    drawn = truth.information(20_000, rng=rng(2))
    stderr = float(drawn.std()) / len(drawn) ** 0.5
    assert abs(float(drawn.mean()) - 0.3936) < 4 * math.hypot(stderr, 0.0027)
    classes = truth.draw_classes(20_000, rng=rng(3))
    x = truth.sample(20_000, given=classes, rng=rng(4))
    p = truth.class_probabilities(x)
    # Bayes' accuracy by hits, and by what the posterior itself promises
    hits = (p.argmax(1) == classes).double()
    assert float(hits.mean()) == pytest.approx(0.546, abs=0.012)
    assert abs(float(hits.mean() - p.amax(1).mean())) < 4 * float((hits - p.amax(1)).std()) / 20_000**0.5
    # another way to I(X; C), with more noise
    log_ratio = truth.log_joint(x)[torch.arange(20_000), classes] + math.log(4) - truth.log_prob(x)
    assert abs(float((log_ratio).mean() - drawn.mean())) < 4 * float(log_ratio.std()) / 20_000**0.5
    # H(X) = H(X | C) + I(X; C)
    log_p = truth.log_prob(x)
    entropy = truth.entropy_given_class + float(drawn.mean())
    assert abs(float(-log_p.mean()) - entropy) < 4 * float(log_p.std()) / 20_000**0.5


def test_samples_are_of_the_class_that_is_asked_for() -> None:
    truth = language("classes", 256)
    given = torch.tensor([3]).expand(3000)
    one = Language(truth.grammar, truth.theta[3:], 256)
    x = truth.sample(3000, given=given, rng=rng(5))
    log_p = one.log_prob(x)
    assert abs(float(-log_p.mean()) - one.entropy_given_class) < 4 * float(log_p.std()) / 3000**0.5
    assert float(truth.class_probabilities(x)[:, 3].mean()) > 0.4
    counts = truth.draw_classes(8000, rng=rng(6)).bincount(minlength=4)
    assert int(counts.min()) > 1800
    for wrong in (given + 1, given[:5]):
        with pytest.raises(UserError, match="classes must be 3000 whole numbers from 0 to 3"):
            truth.sample(3000, given=wrong, rng=rng())
    with pytest.raises(UserError, match="no classes"):
        language("small", 256).sample(3000, given=given, rng=rng())


@pytest.mark.parametrize("name", NAMES)
def test_the_pseudo_likelihood_is_that_of_every_word_in_every_place(name: str) -> None:
    truth = language(name, 256)
    x = truth.sample(12, rng=rng(7))
    x = x[(x > 0).sum(1) < 20]
    expected = []
    for row in x:
        total = 0.0
        for position in range(int((row > 0).sum())):
            others = row.repeat(truth.space.vocab_size, 1)
            others[:, position] = torch.arange(truth.space.vocab_size)
            log_p = truth.log_prob(others[1:])
            total += float(truth.log_prob(row[None])) - float(torch.logsumexp(log_p, 0))
        expected.append(total)
    assert truth.pseudo_log_prob(x).tolist() == pytest.approx(expected)
    assert bool((truth.pseudo_log_prob(x) > truth.log_prob(x)).all())
    broken = x.clone()
    broken[:, 0] = 5 if int(x[0, 0]) != 5 else 6
    broken[:, 1] = 1
    broken[:, 2:] = 0
    assert float(truth.pseudo_log_prob(broken).max()) == -math.inf


@pytest.mark.parametrize("grammar", ["small", "classes", "endings"])
def test_what_begins_as_a_sentence_is_none(grammar: str) -> None:
    truth = language(grammar, 256)
    x = truth.sample(50, rng=torch.Generator().manual_seed(0))
    last = (x != 0).sum(1) - 1
    rows = torch.arange(len(x))
    cut, longer = x.clone(), x.clone()
    cut[rows, last] = 0
    longer[rows, last + 1] = 2
    assert bool(truth.log_prob(x).isfinite().all()) and bool(truth.grammar.parse(x).complete.all())
    for wrong in (cut, longer):
        assert bool(truth.log_prob(wrong).isneginf().all()) and not bool(truth.class_probabilities(wrong).any())
        assert not bool(truth.grammar.parse(wrong).complete.any())
