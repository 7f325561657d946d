"""The LSTM by enumeration of a tiny vocabulary, against the recurrence written out, and on a Markov source."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.lstm import model as lstm_model
from gmbench.baselines.autoregressive.lstm.model import LSTM
from gmbench.baselines.tokens import finished, shifted
from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Trainer
from sentences import every_sequence, ragged, sharpened

TINY = TokenSequence(4, 5)
SENTENCES = TokenSequence(6, 16)
STREAM = TokenSequence(7, 12, ends=False)


def build(space: TokenSequence, **changes: Any) -> LSTM:
    return from_card(LSTM, space, "pcfg", **changes)


def sharp(space: TokenSequence, **changes: Any) -> LSTM:
    return sharpened(build(space, **({"num_layers": 2, "embedding": 8, "hidden": 8} | changes)), std=0.8)


@torch.no_grad()
def by_hand(model: LSTM, x: Tensor) -> Tensor:
    """log p(x_t | x_<t) of one sequence x (T,), the cells' equations one step at a time."""
    network = model.best.network
    parameters = dict(network.lstm.named_parameters())
    h, c = ([torch.zeros(model.config.hidden) for _ in range(model.config.num_layers)] for _ in range(2))
    found, before = [], 0
    for token in x.tolist():
        signal = network.tokens.weight[before]
        for layer in range(model.config.num_layers):
            gates = parameters[f"weight_ih_l{layer}"] @ signal + parameters[f"bias_ih_l{layer}"]
            gates = gates + parameters[f"weight_hh_l{layer}"] @ h[layer] + parameters[f"bias_hh_l{layer}"]
            i, f, g, o = gates.chunk(4)
            c[layer] = f.sigmoid() * c[layer] + i.sigmoid() * g.tanh()
            signal = h[layer] = o.sigmoid() * c[layer].tanh()
        output = network.tokens.weight[1:] if model.config.tied else network.out.weight  # type: ignore[union-attr]
        found.append((output @ signal + network.bias).log_softmax(0)[token - 1])
        before = token
    return torch.stack(found)


@pytest.mark.parametrize("tied", [False, True])
def test_scores_are_those_of_the_cells_written_out(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(SENTENCES, tied=tied), ragged(16, SENTENCES)
    expected = torch.zeros(x.shape)
    for row, one in enumerate(x):
        n = int((one != 0).sum())
        expected[row, :n] = by_hand(model, one[:n])
    assert expected.std() > 0.7
    torch.testing.assert_close(model.token_log_prob(x), expected, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(lstm_model, "TOKENS", 20)
    torch.testing.assert_close(model.token_log_prob(x), expected, atol=1e-5, rtol=1e-4)
    nats = lstm_model.nats_per_token(model.network, x)
    torch.testing.assert_close(nats, -expected.sum() / (x != 0).sum(), atol=1e-5, rtol=1e-4)


def test_probabilities_of_all_sequences_sum_to_one() -> None:
    model, x = sharp(TINY), every_sequence(TINY)
    log_p = model.log_prob(x, rng=rng()).double()
    assert log_p.std() > 0.7
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(model.token_log_prob(x).sum(1).double(), log_p, atol=1e-4, rtol=1e-5)
    assert not model.token_log_prob(x)[x == 0].any()


@torch.no_grad()
def test_later_tokens_do_not_change_what_came_before() -> None:
    model, x = sharp(SENTENCES), torch.randint(2, 6, (20, 16), generator=rng())
    before = model.token_log_prob(x)
    for t in range(1, 16):
        other = x.clone()
        other[:, t:] = torch.randint(2, 6, (20, 16 - t), generator=rng(t))
        gap = (model.token_log_prob(other) - before).abs()
        assert float(gap[:, :t].sum()) < 1e-3 and gap[:, t:].max() > 0.1


@torch.no_grad()
def test_the_state_carries_all_that_was_read() -> None:
    network, x = sharp(SENTENCES).network.eval(), ragged(7, SENTENCES)
    expected, _ = network.hidden(x)
    state, found = None, []
    for piece in x.split((1, 5, 1, 9), 1):
        features, state = network.hidden(piece, state)
        found.append(features)
    torch.testing.assert_close(torch.cat(found, 1), expected)


def test_samples_follow_the_probabilities() -> None:
    model, num = sharp(TINY), 20_000
    x = model.sample(num, rng=rng(6))
    TINY.validate(x)
    states = every_sequence(TINY)
    p = model.log_prob(states, rng=rng()).double().exp()
    code = 4 ** torch.arange(5)
    keys, place = torch.unique(finished(states) @ code, return_inverse=True)  # what is cut off gets its end
    expected = num * torch.zeros(len(keys), dtype=p.dtype).index_add_(0, place, p)
    counts = torch.bincount(torch.searchsorted(keys, x @ code), minlength=len(keys)).double()
    chi_square = float(((counts - expected).square() / expected)[expected > 5].sum())
    assert chi_square < len(keys) + 5 * math.sqrt(2 * len(keys))
    assert model.sample(9, rng=rng(1)).equal(model.sample(9, rng=rng(1)))
    STREAM.validate(sharp(STREAM).sample(50, rng=rng()))


def test_features_are_means_over_the_tokens() -> None:
    model, x = sharp(SENTENCES), ragged(16, SENTENCES)
    with torch.no_grad():
        hidden, _ = model.best.network.hidden(shifted(x))
    expected = torch.stack([h[row != 0].mean(0) for h, row in zip(hidden, x, strict=True)])
    torch.testing.assert_close(model.encode(x), expected)


def test_a_markov_source_is_learned_to_its_entropy() -> None:
    p = 0.05 + torch.rand(7, 7, generator=rng(3)).pow(3)  # of what follows each of 1 … 6, and the start
    p[:, 0] = 0
    p /= p.sum(1, keepdim=True)

    def draw(num: int, generator: Generator) -> Tensor:
        x, before = torch.zeros(num, 12, dtype=torch.long), torch.zeros(num, dtype=torch.long)
        for t in range(12):
            x[:, t] = before = torch.multinomial(p[before], 1, generator=generator)[:, 0]
        return x

    model = build(STREAM, num_steps=250, batch_tokens=768, learning_rate=2e-2, validate_every=50, dropout=0.02)
    Trainer(seed=0).fit(model, Data(STREAM, None, draw, draw(300, rng(9))))
    x = draw(2000, rng(10))
    nats, truth = -model.token_log_prob(x), -p.log()[shifted(x), x]
    entropy = -(p * p.clamp(min=1e-30).log()).sum(1)[shifted(x)]
    error = float((truth - entropy).std()) / math.sqrt(truth.numel())
    assert float(nats.mean()) == pytest.approx(float(entropy.mean()), abs=4 * error + 0.01)
    assert 0 < float((nats - truth).mean()) < 0.02
    counts = torch.bincount(x.flatten(), minlength=7)[1:] / x.numel()
    assert float(nats.mean()) < float(-(counts * counts.log()).sum()) - 0.1
    drawn = model.sample(3000, rng=rng(11))
    pairs = torch.zeros(7, 7).index_put_((shifted(drawn), drawn), torch.ones(drawn.shape), accumulate=True)
    assert float((pairs / pairs.sum(1, keepdim=True) - p).abs().max()) < 0.06


def test_the_best_weights_on_validation_data_are_the_model() -> None:
    train = ragged(8, SENTENCES)  # few enough to be learned by heart

    def draw(num: int, generator: Generator) -> Tensor:
        return train[torch.randint(8, (num,), generator=generator)]

    held_out = ragged(64, SENTENCES, seed=1)
    model = build(SENTENCES, num_steps=60, learning_rate=2e-2, validate_every=5)
    Trainer(seed=0).fit(model, Data(SENTENCES, train, draw, held_out))
    best, last = (-float(lstm_model.score(net, held_out).sum()) for net in (model.best.network, model.network.eval()))
    assert best / int((held_out != 0).sum()) == pytest.approx(float(model.best.loss), abs=1e-4)
    assert best < last - 10


def test_tied_sizes_must_agree() -> None:
    with pytest.raises(UserError, match="tied"):
        build(SENTENCES, tied=True, embedding=8)


def test_the_card_agrees_with_the_config_and_the_model() -> None:
    for task, track in itertools.product(("pcfg", "ptb"), ("smoke", "small", "medium", "paper")):
        LSTM.Config(**card_of(LSTM).resolve(task, track))
    model = build(SENTENCES)
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(LSTM).capabilities)


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        build(SENTENCES).sample(2, given=torch.tensor([0, 1]), rng=rng())
