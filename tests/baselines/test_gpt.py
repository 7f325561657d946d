"""GPT by enumeration of a tiny vocabulary, against plain torch, and on a Markov source whose entropy is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive import vocabulary
from gmbench.baselines.autoregressive.fitting import one_cycle, sequences_per_step
from gmbench.baselines.autoregressive.gpt import model as gpt_model
from gmbench.baselines.autoregressive.gpt.generation import generate
from gmbench.baselines.autoregressive.gpt.model import GPT
from gmbench.baselines.autoregressive.gpt.network import GPTNetwork
from gmbench.baselines.autoregressive.ragged import length_blocks, mean_states
from gmbench.baselines.autoregressive.vocabulary import by_quantiles, draw, token_log_probs
from gmbench.baselines.tokens import finished, shifted
from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Trainer
from sentences import every_sequence, ragged, sharpened

TINY = TokenSequence(4, 5)
SENTENCES = TokenSequence(6, 16)
STREAM = TokenSequence(7, 12, ends=False)


def build(space: TokenSequence, **changes: Any) -> GPT:
    return from_card(GPT, space, "pcfg", **changes)


def sharp(space: TokenSequence, **changes: Any) -> GPT:
    return sharpened(build(space, **({"num_layers": 2} | changes)))


class MarkovSentences:
    """Words 2 … 5, each after the one before with known probabilities; ended by chance."""

    def __init__(self) -> None:
        p = 0.05 + torch.rand(6, 6, generator=rng(3)).pow(3)
        p[:, 0], p[:, 1] = 0, 0.3
        p[0, 1] = 0  # the start is followed by a word
        self.p = p / p.sum(1, keepdim=True)

    def draw(self, num: int, generator: Generator) -> Tensor:
        x, before = torch.zeros(num, 16, dtype=torch.long), torch.zeros(num, dtype=torch.long)
        for t in range(16):
            before = torch.multinomial(self.p[before], 1, generator=generator)[:, 0]
            x[:, t] = before
        x[:, 15] = 1
        return finished(x)

    def token_log_prob(self, x: Tensor) -> Tensor:
        log_p = self.p.log()[shifted(x), x].masked_fill(x == 0, 0.0)
        log_p[:, 15] = 0  # a sequence of the greatest length ends there with probability one
        return log_p


@pytest.fixture(scope="module")
def markov() -> tuple[MarkovSentences, GPT]:
    source = MarkovSentences()
    data = Data(SENTENCES, None, source.draw, source.draw(300, rng(9)))
    model = build(SENTENCES, num_steps=250, batch_tokens=250, learning_rate=5e-3, validate_every=50)
    Trainer(seed=0).fit(model, data)
    return source, model


def test_a_markov_source_is_learned_to_its_entropy(markov: tuple[MarkovSentences, GPT]) -> None:
    source, model = markov
    x = source.draw(3000, rng(10))
    real = (x != 0) & (torch.arange(16) < 15)
    nats = -model.token_log_prob(x)[real]
    # entropy rate: of what follows each word, weighted by how often the word was there
    entropy = -(source.p * source.p.clamp(min=1e-30).log()).sum(1)[shifted(x)[real]]
    error = float((nats - entropy).std()) / math.sqrt(len(nats))
    assert float(nats.mean()) == pytest.approx(float(entropy.mean()), abs=4 * error + 0.01)
    excess = nats + source.token_log_prob(x)[real]
    assert -4 * float(excess.std()) / math.sqrt(len(nats)) < float(excess.mean()) < 0.02
    unigram = torch.bincount(x[real], minlength=6) / real.sum()
    assert float(nats.mean()) < float(-(unigram * unigram.clamp(min=1e-30).log()).sum()) - 0.1


def test_its_samples_follow_the_source(markov: tuple[MarkovSentences, GPT]) -> None:
    source, model = markov
    x = model.sample(4000, rng=rng(11))
    SENTENCES.validate(x)
    pairs = torch.zeros(6, 6)
    inside = (x != 0) & (torch.arange(16) < 15)
    pairs.index_put_((shifted(x)[inside], x[inside]), torch.ones(int(inside.sum())), accumulate=True)
    found = pairs / pairs.sum(1, keepdim=True).clamp(min=1)
    assert float((found - source.p).abs()[[0, 2, 3, 4, 5]].max()) < 0.05


def test_probabilities_of_all_sequences_sum_to_one() -> None:
    model, x = sharp(TINY), every_sequence(TINY)
    log_p = model.log_prob(x, rng=rng()).double()
    assert log_p.std() > 1
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    each = model.token_log_prob(x)
    torch.testing.assert_close(each.sum(1).double(), log_p, atol=1e-4, rtol=1e-5)
    assert not each[x == 0].any() and not each.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("space", [SENTENCES, STREAM])
def test_scores_are_those_of_one_plain_pass(space: TokenSequence, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sharp(space)
    x = ragged(40, space) if space.ends else torch.randint(1, 7, (40, 12), generator=rng())
    logits = model.best.network.hidden(shifted(x)) @ model.best.network.tokens.weight.T
    logits[:, :, 0] = -torch.inf
    expected = logits.log_softmax(2).gather(2, x[:, :, None])[:, :, 0].masked_fill(x == 0, 0.0)
    torch.testing.assert_close(model.token_log_prob(x), expected, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(gpt_model, "TOKENS", 20)
    monkeypatch.setattr(vocabulary, "ROWS", 7)
    torch.testing.assert_close(model.token_log_prob(x), expected, atol=1e-5, rtol=1e-4)
    hidden = model.best.network.hidden(shifted(x))
    means = torch.stack([h[row != 0].mean(0) for h, row in zip(hidden, x, strict=True)])
    torch.testing.assert_close(model.encode(x), means, atol=1e-5, rtol=1e-4)
    nats = gpt_model.nats_per_token(model.network, x)
    torch.testing.assert_close(nats, -expected.sum() / (x != 0).sum(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_later_tokens_do_not_change_what_came_before() -> None:
    model, x = sharp(SENTENCES), torch.randint(2, 6, (20, 16), generator=rng())
    before = model.token_log_prob(x)
    for t in range(16):
        other = x.clone()
        other[:, t:] = torch.randint(2, 6, (20, 16 - t), generator=rng(t + 1))
        gap = (model.token_log_prob(other) - before).abs()
        assert float(gap[:, :t].sum()) < 1e-3
        assert t == 15 or gap[:, t + 1 :].max() > 0.1


@torch.no_grad()
def test_cached_features_are_those_of_a_full_pass() -> None:
    network = sharp(SENTENCES).network.eval()
    x = torch.randint(0, 6, (5, 16), generator=rng())
    memory, added = torch.randn(2, 5, 2, 2, 2, 16, generator=rng(1)), torch.randn(5, 32, generator=rng(2))
    expected = network.hidden(x, memory=memory, added=added)
    past = network.cache(5, memory=memory)
    pieces = [network.hidden(piece, past=past, added=added) for piece in x.split((3, 1, 1, 5, 6), 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)
    for change in ({"memory": memory}, {"added": added}, {}):
        assert (network.hidden(x, **change) - expected).abs().mean() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("space", [SENTENCES, STREAM])
def test_generation_with_and_without_the_cache_draws_the_same(space: TokenSequence) -> None:
    network = sharp(space).network.eval()
    memory, added = torch.randn(2, 30, 1, 2, 2, 16, generator=rng(1)), torch.randn(30, 32, generator=rng(2))
    prompt = torch.randint(0, space.vocab_size, (30, 3), generator=rng(3))
    num, end = space.max_length - 2, 1 if space.ends else None
    found = generate(network, prompt, num, by_quantiles(30, rng(5)), end=end, memory=memory, added=added)
    x, noise = prompt, rng(5)
    for _ in range(num):
        logits = network.logits(network.hidden(x, memory=memory, added=added)[:, -1])
        x = torch.cat([x, draw(logits, torch.rand(30, generator=noise))[:, None]], 1)
    expected = x[:, 3:].clone()
    if space.ends:
        expected[((expected == 1).cumsum(1) - (expected == 1).long()) > 0] = 0
    assert found.equal(expected)
    assert not space.ends or len(found.ne(0).sum(1).unique()) > 5


def test_samples_follow_the_probabilities() -> None:
    model, num = sharp(TINY), 20_000
    x = model.sample(num, rng=rng(6))
    TINY.validate(x)
    states = every_sequence(TINY)
    p = model.log_prob(states, rng=rng()).double().exp()
    ended = finished(states)  # what is cut off gets its end in place of its last word
    code = 4 ** torch.arange(5)
    keys, place = torch.unique(ended @ code, return_inverse=True)
    expected = num * torch.zeros(len(keys), dtype=p.dtype).index_add_(0, place, p)
    counts = torch.bincount(torch.searchsorted(keys, x @ code), minlength=len(keys)).double()
    chi_square = float(((counts - expected).square() / expected)[expected > 5].sum())
    assert chi_square < len(keys) + 5 * math.sqrt(2 * len(keys))
    assert model.sample(9, rng=rng(1)).equal(model.sample(9, rng=rng(1)))
    assert STREAM.validate(sharp(STREAM).sample(50, rng=rng())) is None


@pytest.mark.parametrize("with_bias", [False, True])
def test_blockwise_log_probabilities_are_those_of_log_softmax(with_bias: bool) -> None:
    states, weight = 3 * torch.randn(300, 16, generator=rng()), torch.randn(999, 16, generator=rng(1))
    bias = torch.randn(999, generator=rng(2)) if with_bias else None
    tokens = torch.randint(1, 1000, (300,), generator=rng(3))
    logits = states @ weight.T + (0 if bias is None else bias)
    expected = logits.log_softmax(1).gather(1, tokens[:, None] - 1)[:, 0]
    torch.testing.assert_close(token_log_probs(states, weight, tokens, bias), expected, atol=1e-4, rtol=1e-5)
    assert token_log_probs(1e4 * states, weight, tokens).isfinite().all()


def test_draws_are_quantiles_and_never_impossible() -> None:
    logits = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0]).log().expand(1000, 5)
    u = torch.linspace(0, 1 - 2**-24, 1000)
    expected = torch.tensor([1, 3, 4])[torch.bucketize(u, torch.tensor([0.5, 0.7]), right=True)]
    found = draw(logits, u)
    assert set(found.tolist()) == {1, 3, 4}
    assert (found == expected).float().mean() > 0.995  # 0.2 and 0.3 are rounded


def test_blocks_of_like_length_cover_every_row_within_the_budget() -> None:
    x = ragged(100, SENTENCES)
    blocks = list(length_blocks(x, 64))
    lengths = (x != 0).sum(1)
    assert torch.cat([rows for rows, _ in blocks]).sort()[0].equal(torch.arange(100))
    for rows, length in blocks:
        assert int(lengths[rows].max()) == length and len(rows) * length <= 64
        assert int(lengths[rows].min()) > 0.6 * length
    assert [length for _, length in length_blocks(x, 1)] == sorted(lengths.tolist(), reverse=True)
    assert not mean_states(lambda rows, part: part[:, :, None].float(), torch.zeros(2, 5).long(), 9).any()


def test_classes_are_a_mixture_and_can_be_drawn() -> None:
    def draw_labelled(num: int, generator: Generator) -> tuple[Tensor, Tensor]:
        classes = (torch.rand(num, generator=generator) < 0.75).long()
        x = 2 + 2 * classes[:, None] + torch.randint(2, (num, 16), generator=generator)
        x[torch.rand(num, 16, generator=generator) < 0.1] = 2  # a word of class 0 that the other uses too
        x[torch.rand(num, 16, generator=generator) < 0.3] = 1
        return finished(x), classes

    data = Data(
        SENTENCES,
        None,
        lambda num, rng: draw_labelled(num, rng)[0],
        draw_labelled(200, rng(1))[0],
        draw_labelled=draw_labelled,
        num_classes=2,
    )
    model = build(SENTENCES, num_classes=2, num_steps=150, batch_tokens=200, learning_rate=5e-3, validate_every=50)
    Trainer(seed=0).fit(model, data)
    x, classes = draw_labelled(100, rng(2))
    network, log_share = model.best.network, (model.class_counts / model.class_counts.sum()).log()
    assert float(model.class_counts.sum()) == 150 * sequences_per_step(model.config, data.validation)
    assert float(log_share[1].exp()) == pytest.approx(0.75, abs=0.02)
    given = torch.stack([gpt_model.score(network, x, torch.full((100,), c)).double().sum(1) for c in (0, 1)])
    joint = log_share[:, None] + given
    torch.testing.assert_close(model.log_prob(x, rng=rng()).double(), joint.logsumexp(0), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(model.token_log_prob(x).sum(1), model.log_prob(x, rng=rng()), atol=1e-4, rtol=1e-5)
    assert not model.token_log_prob(x)[x == 0].any()
    with_words = (x > 1).any(1)
    assert float((joint.argmax(0) == classes)[with_words].float().mean()) > 0.85
    wanted = torch.arange(400) % 2
    drawn = model.sample(400, given=wanted, rng=rng(3))
    SENTENCES.validate(drawn)
    assert float((drawn[wanted == 0] > 3).float().mean()) < 0.01 and bool((drawn[wanted == 0] == 3).any())
    assert float((drawn[wanted == 1] == 3).float().mean()) < 0.01 and bool((drawn[wanted == 1] > 3).any())
    free = model.sample(1000, rng=rng(4))
    assert 0.6 < float((free[(free > 2).any(1)] > 3).any(1).float().mean()) < 0.9
    assert model.encode(x).shape == (100, 32) and model.encode(x).isfinite().all()


def test_classes_must_be_those_of_the_task() -> None:
    source = MarkovSentences()
    data = Data(SENTENCES, None, source.draw, source.draw(10, rng()))
    with pytest.raises(UserError, match=r"num_classes=4, .*no classes"):
        build(SENTENCES, num_classes=4).stages(data)
    with pytest.raises(MissingCapability, match="classes"):
        build(SENTENCES).sample(2, given=torch.tensor([0, 1]), rng=rng())
    with pytest.raises(UserError, match="num_heads=3"):
        build(SENTENCES, num_heads=3)


def test_a_step_holds_as_many_tokens_on_texts_of_any_length() -> None:
    config = build(SENTENCES, batch_tokens=100).config
    full = torch.full((5, 16), 2)
    short = [full, full[:, :5], 2 * (torch.arange(16) < 1).long().expand(5, 16)]
    assert [sequences_per_step(config, x) for x in short] == [6, 20, 100]
    assert sequences_per_step(build(SENTENCES, batch_tokens=3).config, full) == 1


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [one_cycle(0.2)(i / 100) for i in range(100)]
    assert 0 < factors[0] < 0.02 and factors[20] == max(factors) == 1.0
    assert factors[:21] == sorted(factors[:21]) and factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[60] == pytest.approx(0.5) and factors[99] < 0.001 and one_cycle(0.0)(0.0) == 1.0


@pytest.mark.parametrize("preset", ["", "guided"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    assert set(card_of(GPT).presets) == {"guided"}
    for task, track in itertools.product(("pcfg", "ptb"), ("smoke", "small", "medium", "paper")):
        GPT.Config(**card_of(GPT).resolve(task, track, preset))
    model = GPT(GPT.Config(**card_of(GPT).resolve("pcfg", "smoke", preset)), SENTENCES)
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(GPT).capabilities)
    x = model.sample(3, rng=rng())
    assert model.encode(x).shape == (3, model.config.dim)
    assert GPTNetwork(4, 5, num_layers=1, dim=4, num_heads=2).output.shape == (3, 4)


@torch.no_grad()
def test_no_more_is_read_than_there_are_positions() -> None:
    network = build(TINY).network.eval()
    x = torch.ones(2, TINY.max_length, dtype=torch.long)
    past = network.cache(2, TINY.max_length + 1)
    network.hidden(x, past=past)
    with pytest.raises(ValueError, match="1 tokens behind 5, and there are 5 positions"):
        network.hidden(x[:, :1], past=past)
    with pytest.raises(ValueError, match="6 tokens behind 0, and there are 5 positions"):
        network.hidden(torch.cat([x, x[:, :1]], 1))
