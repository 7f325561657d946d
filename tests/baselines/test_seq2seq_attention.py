"""Attention over a source: against plain loops, its alignments on a reversal, padding, causality."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import log_softmax

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.seq2seq_attention import model as module
from gmbench.baselines.autoregressive.seq2seq_attention.model import AttentiveSeq2Seq
from gmbench.errors import MissingCapability
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenPair, TokenSequence
from gmbench.training import Trainer

SPACE = TokenPair(TokenSequence(8, 7), TokenSequence(9, 8))  # six words, seven, and targets may be longer
TINY = {"embedding": 6, "hidden": 8, "alignment": 5, "maxout": 7, "num_steps": 10, "batch_size": 8, "validate_every": 5}


def build(space: TokenPair = SPACE, **changes: Any) -> AttentiveSeq2Seq:
    return from_card(AttentiveSeq2Seq, space, "seq2seq_cipher", **{**TINY, **changes})


def sharp(**changes: Any) -> AttentiveSeq2Seq:
    """A model that is far from uniform, and whose kept weights are those that train."""
    model = build(**changes)
    with torch.no_grad():
        for index, parameter in enumerate(model.network.parameters()):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=rng(index)))
    model.best.network.load_state_dict(model.network.state_dict())
    return model


def ended(words: Tensor, length: Tensor) -> Tensor:
    """Words (B, L) cut to lengths (B, 1), EOS, and padding."""
    place = torch.arange(words.shape[1])
    return torch.where(place < length, words, torch.where(place == length, 1, 0))


def pairs(num: int, seed: int = 1, *, shift: int = 1) -> Tensor:
    """Sources of 2 to 6 of six words, and the same words from behind, with ids that are `shift` higher, (num, 15)."""
    generator = rng(seed)
    length = torch.randint(2, 7, (num, 1), generator=generator)
    words = torch.randint(2, 8, (num, 7), generator=generator)
    origin = (length - 1 - torch.arange(8)).clamp(min=0)
    return torch.cat([ended(words, length), ended(words.gather(1, origin) + shift, length)], 1)


def unrelated(num: int, seed: int = 2) -> Tensor:
    """Sources and targets of all lengths."""
    generator = rng(seed)
    parts = [
        ended(torch.randint(2, size, (num, length), generator=generator),
              torch.randint(0, length, (num, 1), generator=generator))
        for size, length in ((8, 7), (9, 8))
    ]  # fmt: skip
    return torch.cat(parts, 1)


def lstm(cell: Any, suffix: str, x: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    w, r, b, c = (getattr(cell, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    i, f, g, o = (w @ x + b + r @ state + c).chunk(4)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


@torch.no_grad()
def by_hand(model: AttentiveSeq2Seq, source: list[int], target: list[int]) -> tuple[list[float], Tensor]:
    """log p of every token of a target, and the weights (T, S), word by word from the paper's equations."""
    memory, d = model.best.network.memory, model.best.network.decoder
    hidden = model.config.hidden
    annotations = torch.zeros(len(source), 2 * hidden)
    for part, order, columns in (
        (memory.forwards, range(len(source)), slice(0, hidden)),
        (memory.backwards, reversed(range(len(source))), slice(hidden, 2 * hidden)),
    ):
        state = cell = torch.zeros(hidden)
        for j in order:
            state, cell = lstm(part, "_l0", memory.embedding.weight[source[j]], state, cell)
            annotations[j, columns] = state
    state = (d.start.weight @ annotations[0, hidden:] + d.start.bias).tanh()
    cell, before, each, weights = torch.zeros(hidden), 0, [], []
    for token in target:
        scores = [
            d.energy.weight[0] @ (d.of_state.weight @ state + d.of_state.bias + d.of_annotation.weight @ h).tanh()
            for h in annotations
        ]
        alpha = torch.stack(scores).softmax(0)
        context, word = alpha @ annotations, d.embedding.weight[before]
        state, cell = lstm(d.cell, "", torch.cat([word, context]), state, cell)
        features = d.features.weight @ torch.cat([state, word, context]) + d.features.bias
        logits = d.output.weight @ features.view(-1, 2).amax(1) + d.output.bias
        each.append(float(log_softmax(logits, 0)[token - 1]))
        weights.append(alpha)
        before = token
    return each, torch.stack(weights)


def test_probabilities_and_weights_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(), unrelated(12)
    found, weights = model.token_log_prob(x), model.attention(x)
    assert found.shape == (12, 8) and weights.shape == (12, 8, 7)
    sources, targets = SPACE.split(x)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        source, target = source[source != 0], target[target != 0]
        each, alpha = by_hand(model, source.tolist(), target.tolist())
        torch.testing.assert_close(found[row, : len(target)], torch.tensor(each), atol=1e-5, rtol=1e-5)
        assert not found[row, len(target) :].any()
        torch.testing.assert_close(weights[row, : len(target), : len(source)], alpha, atol=1e-5, rtol=1e-5)
        assert not weights[row, :, len(source) :].any()
    torch.testing.assert_close(weights.sum(2), torch.ones(12, 8))
    assert float(weights.std()) > 0.1
    torch.testing.assert_close(model.log_prob(x, rng=rng()), found.sum(1))
    for logits, rows in ((1, 5), (300, 1)):
        monkeypatch.setattr(module, "LOGITS", logits)
        monkeypatch.setattr(module, "ROWS", rows)
        torch.testing.assert_close(model.token_log_prob(x), found)
        torch.testing.assert_close(model.attention(x), weights)


def test_padding_of_a_source_never_matters() -> None:
    model, x = sharp(), unrelated(6)
    source, target = SPACE.split(x)
    alone = [model.token_log_prob(row[None])[0] for row in x]  # trimmed to the row's own length
    torch.testing.assert_close(model.token_log_prob(x), torch.stack(alone))
    network = model.best.network.eval()
    with torch.no_grad():
        logits, weights = network.decoder(network.memory(source), source, target)
        wider = torch.cat([source, torch.zeros_like(source)], 1)  # decoded without being trimmed
        more_logits, more_weights = network.decoder(network.memory(wider), wider, target)
    torch.testing.assert_close(more_logits, logits)
    torch.testing.assert_close(more_weights[..., :7], weights)
    assert not more_weights[..., 7:].any()


def test_a_target_looks_back_only_and_at_all_of_its_source() -> None:
    model = sharp()
    x = pairs(5)
    x = x[(x != 0).sum(1).argmax()][None].clone()
    before = model.token_log_prob(x)
    other = x.clone()
    other[0, 7 + 2] = 3 + (x[0, 7 + 2] + 1) % 6  # the target's third word
    changed = (model.token_log_prob(other) - before).abs()[0]
    assert float(changed[:2].max()) == 0 and float(changed[2:5].min()) > 1e-4
    for place in range(int((x[0, :7] != 0).sum()) - 1):
        other = x.clone()
        other[0, place] = 2 + (x[0, place] + 1) % 6
        assert float((model.token_log_prob(other) - before).abs()[0, 0]) > 1e-5


def test_probabilities_of_targets_sum_to_one() -> None:
    """Targets of at most two words, and what is left: those whose first three tokens are words."""
    model, words = sharp(), range(2, 9)
    ends = [[1], *([a, 1] for a in words), *([a, b, 1] for a in words for b in words)]
    goes_on = [[a, b, c] for a in words for b in words for c in words]
    targets = torch.tensor([row + [0] * (8 - len(row)) for row in [*ends, *goes_on]])
    source = unrelated(1)[:, :7].expand(len(targets), -1)
    assert float(model.token_log_prob(torch.cat([source, targets], 1)).sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_probabilities_given_their_sources() -> None:
    model, num = sharp(), 3000
    sources = unrelated(2, seed=5)[:, :7]
    drawn = model.sample(2 * num, given=sources.repeat_interleave(num, 0), rng=rng(6)).view(2, num, 8)
    for source, rows in zip(sources, drawn, strict=True):
        SPACE.target.validate(rows)
        pairs_of_words = torch.cartesian_prod(torch.arange(1, 9), torch.arange(1, 9))
        pairs_of_words[pairs_of_words[:, 0] == 1, 1] = 0
        pairs_of_words = pairs_of_words.unique(dim=0)
        target = torch.nn.functional.pad(pairs_of_words, (0, 6))
        x = torch.cat([source.expand(len(target), -1), target], 1)
        expected = model.token_log_prob(x).sum(1).double().exp() * num  # of the first two tokens
        counts = (rows[:, None, :2] == pairs_of_words).all(2).sum(0)
        assert float(expected.sum()) == pytest.approx(num, rel=1e-5) and int(counts.sum()) == num
        common = expected > 5
        degrees = int(common.sum()) - 1
        chi_square = float(((counts - expected).square() / expected)[common].sum())
        assert degrees > 3 and chi_square < degrees + 7 * math.sqrt(2 * degrees)
    again = model.sample(4, given=sources.repeat(2, 1), rng=rng(1))
    assert again.equal(model.sample(4, given=sources.repeat(2, 1), rng=rng(1)))
    with pytest.raises(MissingCapability, match="needs the sources"):
        model.sample(4, rng=rng())
    with pytest.raises(ValueError, match="3 targets of 2 sources"):
        model.sample(3, given=sources, rng=rng())


def test_a_reversal_is_learned_and_attention_finds_where_each_word_came_from() -> None:
    def draw(num: int, generator: Generator) -> Tensor:
        return pairs(num, int(torch.randint(2**40, (1,), generator=generator)))

    sizes = {"embedding": 16, "hidden": 32, "alignment": 32, "maxout": 32}
    model = build(**sizes, num_steps=240, batch_size=64, learning_rate=0.01, validate_every=50)
    data = Data(SPACE, None, draw, pairs(300, 100))
    Trainer(seed=0).fit(model, data)
    x = pairs(300, 200)
    source, target = SPACE.split(x)
    nats = -model.log_prob(x, rng=rng()) / (target != 0).sum(1)
    unaware = 6 * math.log(6) / 7  # nats a token of six words that are guessed, roughly
    assert float(nats.mean()) < 0.02 < unaware
    length, place = (source > 1).sum(1, keepdim=True), torch.arange(8)
    origin, words = length - 1 - place, place < length
    right = (model.attention(x).argmax(2) == origin)[words]
    assert float(right.double().mean()) > 0.95
    sampled = model.sample(300, given=source, rng=rng(3))
    assert float((sampled == target).all(1).double().mean()) > 0.9
    # the weights that were kept are the best on validation data
    expected = -float(model.token_log_prob(data.validation).double().sum() / (data.validation[:, 7:] != 0).sum())
    assert float(model.best.loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", ["seq2seq_cipher", "another"])
def test_the_card_agrees_with_the_config_and_the_model(task: str) -> None:
    for track in ("smoke", "small", "medium", "paper"):
        AttentiveSeq2Seq.Config(**card_of(AttentiveSeq2Seq).resolve(task, track))
    model = build()
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(AttentiveSeq2Seq).capabilities)
