"""Weights are chosen in full precision, also where a run trains in mixed precision."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import from_card, rng
from gmbench.baselines.autoregressive.gpt.model import GPT
from gmbench.baselines.autoregressive.lstm.model import LSTM
from gmbench.baselines.autoregressive.seq2seq_attention.model import AttentiveSeq2Seq
from gmbench.baselines.autoregressive.transformer.model import EncoderDecoder
from gmbench.baselines.latent.hmm.model import HMM
from gmbench.baselines.latent.lstm_vae.model import LSTMVAE
from gmbench.baselines.latent.optimus.model import Optimus
from gmbench.baselines.masked.bert.model import BERT
from gmbench.baselines.precision import full_precision
from gmbench.baselines.tokens import finished
from gmbench.model import Data
from gmbench.spaces import TokenPair, TokenSequence
from gmbench.training import Trainer

SPACE = TokenSequence(9, 10)
PAIRS = TokenPair(TokenSequence(8, 7), TokenSequence(9, 8))


def sequences(num: int, space: TokenSequence, generator: Generator) -> Tensor:
    x = torch.randint(2, space.vocab_size, (num, space.max_length), generator=generator)
    x[torch.arange(num), torch.arange(num) % space.max_length] = space.EOS
    return finished(x)


def points(num: int, space: TokenSequence | TokenPair, generator: Generator) -> Tensor:
    if isinstance(space, TokenSequence):
        return sequences(num, space, generator)
    return torch.cat([sequences(num, one, generator) for one in (space.source, space.target)], 1)


def build(kind: Any, space: TokenSequence | TokenPair = SPACE, **changes: Any) -> Any:
    task = "pcfg" if isinstance(space, TokenSequence) else "seq2seq_cipher"
    return from_card(kind, space, task, **changes)


def data(space: TokenSequence | TokenPair) -> Data:
    train = points(60, space, rng(1))
    return Data(space, train, lambda num, g: train[torch.randint(60, (num,), generator=g)], points(40, space, rng(2)))


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_within_nothing_is_cast_and_without_it_is_again() -> None:
    a = torch.randn(3, 3, generator=rng())

    @full_precision()
    def product() -> Tensor:
        return a @ a

    with half():
        assert (a @ a).dtype == torch.bfloat16 and product().dtype == torch.float32
        with full_precision():
            assert (a @ a).equal(product())
        assert (a @ a).dtype == torch.bfloat16
    with full_precision():
        assert not torch.is_autocast_enabled("cpu")
    assert product().dtype == torch.float32


def validation(model: Any) -> Tensor:
    """The loss on validation points by which the model would choose its present weights."""
    x = points(40, model.space, rng(3))
    noise = torch.randn(1, 40, getattr(model.config, "latent_dim", 1), generator=rng(4))
    model.best.loss.fill_(math.inf)
    if isinstance(model, LSTMVAE):
        model._look(x, noise, SimpleNamespace(fraction=1.0), candidate=True)  # type: ignore[arg-type]
    elif isinstance(model, Optimus):
        model._validate(x, noise)
    elif isinstance(model, BERT):
        model._validate(*model._masked(x, rng(5)), x)
    else:
        model._validate(x)
    return model.best.loss.clone()


NEURAL = [
    (GPT, SPACE),
    (LSTM, SPACE),
    (BERT, SPACE),
    (LSTMVAE, SPACE),
    (Optimus, SPACE),
    (AttentiveSeq2Seq, PAIRS),
    (EncoderDecoder, PAIRS),
]


@pytest.mark.parametrize(("kind", "space"), NEURAL)
def test_validation_under_autocast_is_that_without(kind: Any, space: TokenSequence | TokenPair) -> None:
    model = build(kind, space)
    with torch.no_grad():
        for index, parameter in enumerate(model.network.parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng(index)))
    expected = validation(model)
    with half():
        found = validation(model)
    assert expected.isfinite() and found.equal(expected)


@pytest.mark.parametrize(("kind", "space"), NEURAL)
def test_weights_of_a_mixed_fit_have_the_loss_they_were_chosen_by(kind: Any, space: TokenSequence | TokenPair) -> None:
    model, losses = build(kind, space, num_steps=6, validate_every=6), []
    offer = model.best.offer
    model.best.offer = lambda network, loss: (losses.append(loss), offer(network, loss))
    before = [parameter.detach().clone() for parameter in model.network.parameters()]
    Trainer(seed=0, precision="bf16-mixed").fit(model, data(space))
    [loss] = losses
    assert loss.dtype == torch.float64 and loss.isfinite()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.network.parameters())
    assert any(not p.equal(old) for p, old in zip(model.network.parameters(), before, strict=True))
    if hasattr(model, "token_log_prob"):
        x = data(space).validation
        real = x if isinstance(space, TokenSequence) else space.split(x)[1]
        nll = -model.token_log_prob(x).double().sum() / (real != 0).sum()
        torch.testing.assert_close(loss, nll, rtol=1e-6, atol=0)


def test_expectation_maximisation_is_the_same_in_mixed_precision() -> None:
    plain, mixed = build(HMM), build(HMM)
    Trainer(seed=0).fit(plain, data(SPACE))
    Trainer(seed=0, precision="bf16-mixed").fit(mixed, data(SPACE))
    for name, tensor in plain.state_dict().items():
        assert tensor.equal(mixed.state_dict()[name]), name
