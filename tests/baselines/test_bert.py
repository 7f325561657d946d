"""BERT's masks by their frequencies, its pseudo-likelihood by a direct loop, and palindromes to see through."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from building import card_of, from_card, rng
from gmbench.baselines.masked.bert import model as bert_model
from gmbench.baselines.masked.bert.masking import masked
from gmbench.baselines.masked.bert.model import BERT, masked_nll
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Trainer
from sentences import ragged, sharpened

SENTENCES = TokenSequence(6, 10)
PALINDROMES = TokenSequence(6, 7)


def build(space: TokenSequence, **changes: Any) -> BERT:
    return from_card(BERT, space, "pcfg", **changes)


def sharp(space: TokenSequence) -> BERT:
    return sharpened(build(space, num_layers=2))


@torch.no_grad()
def conditionals(model: BERT, x: Tensor) -> Tensor:
    """log p(x_t | all others) of one sequence without padding x (n,), one token at a time, (n,)."""
    found = []
    for t in range(len(x)):
        shown = x.clone()
        shown[t] = 6
        logits = model.best.network.logits(model.best.network.hidden(shown[None])[0, 1 + t])
        found.append(logits.log_softmax(0)[x[t] - 1])
    return torch.stack(found)


@pytest.mark.parametrize("tokens", [16384, 25])
def test_the_pseudo_likelihood_is_that_of_a_direct_loop(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(SENTENCES), ragged(20, SENTENCES)
    monkeypatch.setattr(bert_model, "TOKENS", tokens)
    expected = torch.stack([conditionals(model, row[row != 0]).sum() for row in x])
    assert expected.std() > 1
    torch.testing.assert_close(model.pseudo_log_prob(x), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_every_token_sees_all_others_and_no_padding() -> None:
    network, x = sharp(SENTENCES).network.eval(), torch.randint(2, 6, (1, 10), generator=rng())
    before = network.hidden(x)
    for t in range(10):
        other = x.clone()
        other[:, t] = 2 + (x[:, t] - 1) % 4
        assert ((network.hidden(other) - before).abs().amax(2) > 1e-3).all()
    short = x[:, :6]
    padded = torch.cat([short, torch.zeros_like(x[:, 6:])], 1)
    both = torch.cat([padded, x])  # beside a row that is full
    torch.testing.assert_close(network.hidden(both)[:1, :7], network.hidden(short), atol=1e-5, rtol=1e-5)


def test_masks_have_their_shares() -> None:
    x = torch.randint(2, 6, (2000, 20), generator=rng())
    x[:, 12:] = torch.where(torch.arange(2000)[:, None] % 2 == 0, 0, x[:, 12:])
    before = x.clone()
    shown, chosen = masked(x, share=0.3, vocab_size=6, mask=6, rng=rng(1))
    assert x.equal(before) and not chosen[x == 0].any() and chosen.any(1).all()
    assert shown[~chosen].equal(x[~chosen])
    num = int(chosen.sum())
    spread = 5 / math.sqrt(num)
    assert num / int((x != 0).sum()) == pytest.approx(0.3, abs=0.01)
    assert float((shown[chosen] == 6).float().mean()) == pytest.approx(0.8, abs=spread)
    kept = shown[chosen][shown[chosen] != 6]
    assert kept.bincount(minlength=6).tolist()[0] == 0 and int(kept.max()) == 5
    # a tenth as it is, and of the tenth of random tokens one in five
    assert float((shown == x)[chosen].float().mean()) == pytest.approx(0.1 + 0.02, abs=spread)
    one = masked(torch.tensor([[3, 1, 0, 0]]).expand(500, 4), share=1e-9, vocab_size=6, mask=6, rng=rng(2))[1]
    assert (one.sum(1) == 1).all() and float(one[:, 0].float().mean()) == pytest.approx(0.5, abs=0.12)


def test_the_loss_counts_the_chosen_tokens_only() -> None:
    model, x = sharp(SENTENCES), ragged(20, SENTENCES)
    shown, chosen = masked(x, share=0.4, vocab_size=6, mask=6, rng=rng(1))
    with torch.no_grad():
        nats, num = masked_nll(model.network.eval(), shown, chosen, x)
        log_p = []
        for show, pick, row in zip(shown, chosen, x, strict=True):
            logits = model.network.logits(model.network.hidden(show[row != 0][None])[0, 1:])
            log_p += [logits[t].log_softmax(0)[row[t] - 1] for t in pick.nonzero()[:, 0]]
    assert num == int(chosen.sum()) == len(log_p)
    torch.testing.assert_close(nats, -torch.stack(log_p).sum(), atol=1e-3, rtol=1e-5)


def test_palindromes_are_seen_through() -> None:
    """Each token but the middle one is told by its mirror image: from the left alone, only half of them are."""

    def draw(num: int, generator: Generator) -> Tensor:
        half = torch.randint(2, 6, (num, 3), generator=generator)
        return torch.cat([half, half.flip(1), torch.ones(num, 1, dtype=torch.long)], 1)

    model = build(PALINDROMES, num_steps=350, batch_tokens=448, learning_rate=1e-2, validate_every=50, mask_share=0.3)
    Trainer(seed=0).fit(model, Data(PALINDROMES, None, draw, draw(200, rng(1))))
    x = draw(300, rng(2))
    assert float(model.pseudo_log_prob(x).mean()) > -0.2  # of any distribution of them, log p would be -3 log 4 = -4.2
    broken = x.clone()
    broken[:, 4] = 2 + (x[:, 4] - 1) % 4
    assert float(model.pseudo_log_prob(broken).mean()) < -5
    assert model.encode(x).shape == (300, 32)
    probe = torch.linalg.lstsq(model.encode(x[:200]), nn.functional.one_hot(x[:200, 0]).float()).solution
    assert float(((model.encode(x[200:]) @ probe).argmax(1) == x[200:, 0]).float().mean()) > 0.5


def test_features_are_means_over_the_tokens() -> None:
    model, x = sharp(SENTENCES), ragged(16, SENTENCES)
    with torch.no_grad():
        expected = torch.stack([model.best.network.hidden(row[row != 0][None])[0, 1:].mean(0) for row in x])
    torch.testing.assert_close(model.encode(x), expected, atol=1e-5, rtol=1e-5)


def test_it_claims_no_probabilities_and_agrees_with_its_card() -> None:
    for task, track in itertools.product(("pcfg", "ptb"), ("smoke", "small", "medium", "paper")):
        BERT.Config(**card_of(BERT).resolve(task, track))
    assert {name for name in CAPABILITIES if offers(build(SENTENCES), name)} == {"pseudo_log_prob", "encode"}
    assert set(card_of(BERT).capabilities) == {"pseudo_log_prob", "encode"}
    with pytest.raises(UserError, match="num_heads=3"):
        build(SENTENCES, num_heads=3)
