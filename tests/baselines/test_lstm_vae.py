"""The recurrent VAE: its bound against plain loops and torch.distributions, a language with known log p, remedies."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import log_softmax

from building import card_of, from_card, rng
from gmbench.baselines.latent.lstm_vae import model as module
from gmbench.baselines.latent.lstm_vae.aggressive import Aggressive, at_rest
from gmbench.baselines.latent.lstm_vae.model import LSTMVAE
from gmbench.baselines.latent.lstm_vae.plateau import Plateau
from gmbench.errors import MissingCapability, UserError
from gmbench.metrics.importance_bound import evidence_bound, importance_bound
from gmbench.metrics.mutual_information import mutual_information
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.tasks.language.latent_language.language import ProbitPolya
from gmbench.training import Gradient, Interrupted, Trainer

SPACE = TokenSequence(6, 8)
TINY = {"latent_dim": 2, "embedding": 6, "hidden": 12, "num_steps": 30, "batch_size": 8, "validate_every": 10}
POLYA = ProbitPolya(2, 6, interleaved=False, num_latents=2)


def build(space: TokenSequence = SPACE, preset: str = "", **changes: Any) -> LSTMVAE:
    return from_card(LSTMVAE, space, "latent_language", preset, **{**TINY, **changes})


def sharp(**changes: Any) -> LSTMVAE:
    """A model that is far from uniform, and whose kept weights are those that train."""
    model = build(**changes)
    with torch.no_grad():
        for index, parameter in enumerate(model.network.parameters()):
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=rng(index)))
    model.best.network.load_state_dict(model.network.state_dict())
    return model


def sentences(num: int, seed: int = 1) -> Tensor:
    """Rows of 0 to 7 of four words, EOS, and padding, (num, 8)."""
    words = torch.randint(2, 6, (num, 8), generator=rng(seed))
    length = torch.randint(0, 8, (num, 1), generator=rng(seed + 1))
    place = torch.arange(8)
    return torch.where(place < length, words, torch.where(place == length, 1, 0))


def data_of(source: Callable[[int, Generator], Tensor], space: TokenSequence, num_validation: int = 200) -> Data:
    return Data(space, None, source, source(num_validation, rng(99)))


def by_hand(model: LSTMVAE, x: list[int], z: Tensor) -> float:
    """log p(x | z) of one sentence, x = [words …, EOS], one word after another, from the LSTM's equations."""
    d = model.best.network.decoder
    weights = d.lstm
    cell = d.start.weight @ z
    state = cell.tanh()
    total, before = 0.0, 0
    for token in x:
        inputs = torch.cat([d.embedding.weight[before], z])
        gates = weights.weight_ih_l0 @ inputs + weights.bias_ih_l0 + weights.weight_hh_l0 @ state + weights.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        total += float(log_softmax(d.output.weight @ state + d.output.bias, 0)[token - 1])
        before = token
    return total


def test_log_likelihood_is_that_of_a_plain_loop_and_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(), sentences(9)
    z = torch.randn(3, 9, 2, generator=rng(2))
    found = model.log_likelihood(x, z)
    with torch.no_grad():
        expected = [by_hand(model, row[row != 0].tolist(), one) for some in z for row, one in zip(x, some, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected).view(3, 9), atol=1e-5, rtol=1e-5)
    assert found.std() > 1 and not found.requires_grad
    wider = torch.cat([x, torch.zeros_like(x)], 1)
    torch.testing.assert_close(model.log_likelihood(wider, z), found)
    torch.testing.assert_close(model.posterior(wider).mean, model.posterior(x).mean)
    for tokens in (1, 20, 50):
        monkeypatch.setattr(module, "TOKENS", tokens)
        torch.testing.assert_close(model.log_likelihood(x, z), found)
        torch.testing.assert_close(model.posterior(x).mean, model.encode(x))


def test_probabilities_of_sentences_sum_to_one() -> None:
    """All of at most two words, and what is left: sentences whose first three tokens are words."""
    model = sharp()
    short = [[1], *([a, 1] for a in range(2, 6)), *([a, b, 1] for a in range(2, 6) for b in range(2, 6))]
    long = [[a, b, c] for a in range(2, 6) for b in range(2, 6) for c in range(2, 6)]
    x = torch.tensor([row + [0] * (8 - len(row)) for row in short + long])
    z = torch.randn(1, 1, 2, generator=rng(3)).expand(1, len(x), 2)
    assert float(model.log_likelihood(x, z).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_the_loss_is_the_negative_elbo_with_its_parts() -> None:
    model, x = sharp(), sentences(6)
    q = model.posterior(x)
    for weight in (0.0, 0.3, 1.0):
        noise = torch.randn(6, 2, generator=rng(4))
        z = q.mean + q.stddev * noise
        reconstruction = model.log_likelihood(x, z[None])[0].mean()
        expected = -reconstruction + weight * kl_divergence(q, model.prior()).mean()
        torch.testing.assert_close(model.loss(x, weight, rng(4)).detach(), expected)


def test_free_nats_take_the_place_of_a_smaller_kl() -> None:
    x = sentences(6)
    whole = sharp()
    parts = kl_divergence(whole.posterior(x).base_dist, whole.prior().base_dist).mean(0)  # (Z,)
    nll = float(whole.loss(x, 0.0, rng(4)).detach())
    low, high = float(parts.min()), float(parts.max())
    assert high > low + 0.04
    between = (low + high) / 2
    floored = float(sharp(free_bits=between).loss(x, 1.0, rng(4)).detach())
    assert floored == pytest.approx(nll + between + high, abs=1e-4)
    for target, cost in ((low + high - 0.01, low + high), (low + high + 0.1, low + high + 0.1)):
        assert float(sharp(target_kl=target).loss(x, 1.0, rng(4)).detach()) == pytest.approx(nll + cost, abs=1e-4)
    with pytest.raises(UserError, match="free_bits and target_kl"):
        build(free_bits=0.1, target_kl=1.0)


def test_withheld_words_are_not_seen_and_nothing_is_withheld_outside_training() -> None:
    model, x = sharp(word_dropout=1.0), sentences(20)
    z = torch.randn(20, 2, generator=rng(5))
    decoder = model.network.decoder
    blind = decoder.nll(x, z, word_dropout=1.0, rng=rng())
    with torch.no_grad():
        decoder.embedding.weight[1:6].add_(1.0)  # words and EOS; not the start, not the blank
    torch.testing.assert_close(decoder.nll(x, z, word_dropout=1.0, rng=rng()), blind)
    before = decoder.nll(x, z, word_dropout=0.0, rng=rng())
    with torch.no_grad():
        decoder.embedding.weight[6].add_(1.0)  # the blank
    torch.testing.assert_close(decoder.nll(x, z, word_dropout=0.0, rng=rng()), before)
    assert float((decoder.nll(x, z, word_dropout=0.5, rng=rng()) - before).detach().abs()) > 1e-4


def test_gradients_agree_with_finite_differences() -> None:
    model = sharp(free_bits=0.1)
    model.network.double()
    x = sentences(8)
    parameters = list(model.network.parameters())
    gradient = torch.autograd.grad(model.loss(x, 0.7, rng(6)), parameters)
    towards = [torch.randn(p.shape, generator=rng(7), dtype=torch.float64) for p in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradient, towards, strict=True))
    values = []
    for size in (1e-6, -2e-6):
        with torch.no_grad():
            for p, d in zip(parameters, towards, strict=True):
                p.add_(size * d)
        values.append(float(model.loss(x, 0.7, rng(6))))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-4)


def test_greedy_decoding_takes_the_likeliest_word_each_time() -> None:
    model = sharp()
    z = 2 * torch.randn(20, 2, generator=rng(8))
    found = model.decode(z)
    SPACE.validate(found)
    assert len(found.unique(dim=0)) > 3  # it depends on z
    for row, one in zip(found[:6], z, strict=False):
        tokens = row[row != 0].tolist()
        for t in range(min(len(tokens), 7)):
            with torch.no_grad():
                scores = [by_hand(model, [*tokens[:t], other], one) for other in range(1, 6)]
            assert scores.index(max(scores)) + 1 == tokens[t]
    torch.testing.assert_close(model.reconstruct(found), model.decode(model.encode(found)))


def test_samples_follow_the_probabilities_of_first_words() -> None:
    model, num = sharp(), 8000
    x = model.sample(num, rng=rng(9))
    SPACE.validate(x)
    z = torch.randn(20_000, 1, 2, generator=rng(10)).expand(-1, 5, -1)
    first = torch.tensor([[token, 0, 0, 0, 0, 0, 0, 0] for token in range(1, 6)])  # scored as far as they go
    expected = model.log_likelihood(first, z).exp().mean(0).double() * num
    counts = x[:, 0].bincount(minlength=6)[1:]
    assert float(((counts - expected).square() / expected).sum()) < 4 + 7 * math.sqrt(8)
    assert model.sample(30, rng=rng(1)).equal(model.sample(30, rng=rng(1)))
    stream = build(TokenSequence(6, 8, ends=False)).sample(50, rng=rng(1))
    TokenSequence(6, 8, ends=False).validate(stream)


def test_bounds_on_a_known_language_rise_to_its_log_p_and_never_above() -> None:
    changes = {"hidden": 24, "embedding": 8, "num_steps": 350, "batch_size": 64, "validate_every": 70}
    # half the words are withheld from the decoder in training, so that it asks its latents
    model = build(POLYA.space, **changes, learning_rate=0.02, word_dropout=0.5)
    Trainer(seed=0).fit(model, data_of(lambda num, generator: POLYA.sample(num, rng=generator), POLYA.space))
    x = POLYA.sample(300, rng=rng(11))
    parts = (model.prior(), model.posterior, model.log_likelihood, x)
    excess = []
    for num in (1, 10, 200):
        gap = POLYA.log_prob(x) - importance_bound(*parts, num_importance=num, rng=rng(12))
        error = float(gap.std()) / math.sqrt(len(x))
        assert float(gap.mean()) > -3 * error
        excess.append(float(gap.mean()))
    loose = evidence_bound(*parts, num_draws=5, rng=rng(13))
    elbo = float((POLYA.log_prob(x) - loose.elbo).mean())
    assert excess[0] == pytest.approx(elbo, abs=0.05)
    assert float(loose.kl.mean()) > 0.1
    assert excess[0] > excess[1] + 0.01 and excess[1] > excess[2]
    assert excess[2] < 0.35 < 12 * math.log(2) - POLYA.entropy - 0.6  # far below that of words at random, one nat
    assert float(model.best.loss) == pytest.approx(-float(loose.elbo.mean()), abs=0.5)


def independent(num: int, generator: Generator) -> Tensor:
    """Sentences of seven words, each any of four: there is nothing for a latent to say."""
    words = torch.randint(2, 6, (num, 7), generator=generator)
    return torch.cat([words, torch.ones_like(words[:, :1])], 1)


def test_latents_of_words_without_anything_in_common_are_empty_unless_nats_are_free() -> None:
    kls = []
    for floor in (0.0, 0.3):
        model = build(free_bits=floor, num_steps=120, batch_size=64, learning_rate=0.01, annealing="none")
        data = data_of(independent, SPACE)
        Trainer(seed=0).fit(model, data)
        q = model.posterior(data.validation)
        kls.append(float(kl_divergence(q, model.prior()).mean()))
    assert kls[0] < 0.03 < 0.3 < kls[1]
    assert mutual_information(q, rng=rng()).lower.value > 0.1


def test_only_full_bounds_and_the_last_step_are_candidates() -> None:
    model = build(annealing="monotone", ramp=0.5, num_steps=40, validate_every=10)
    weights: list[int] = []
    step_of = {"now": 0}
    offer, look = model.best.offer, model._look

    def looking(x: Tensor, noise: Tensor, step: Any, *, candidate: bool) -> None:
        step_of["now"] = step.index + 1
        look(x, noise, step, candidate=candidate)

    model._look = looking  # type: ignore[method-assign]
    model.best.offer = lambda network, loss: (weights.append(step_of["now"]), offer(network, loss))[1]  # type: ignore[assignment, func-returns-value]
    Trainer(seed=0).fit(model, data_of(independent, SPACE, 50))
    assert weights == [30, 40]  # at step 20 the weight is 19 / 20
    weights.clear()
    model.config = model.config.model_copy(update={"ramp": 1.0})
    Trainer(seed=0).fit(model, data_of(independent, SPACE, 50))
    assert weights == [40]


def test_turns_of_the_encoder_end_when_its_loss_stops_falling() -> None:
    encoder, decoder = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    turns = Aggressive(most=6, window=2)

    def whose() -> str:
        resting = turns.resting(encoder, decoder)
        return {id(encoder): "decoder", id(decoder): "encoder", id(None): "both"}[id(resting)]

    def take(losses: list[float]) -> str:
        found = ""
        for loss in losses:
            found += whose()[0]
            turns.stepped(torch.tensor(loss))
        return found

    assert take([5, 4, 3, 3, 3, 3.5, 9]) == "eeeeeed"  # windows 4.5, 3, 3.25: the third is no better
    assert take([5, 4, 4, 5, 1]) == "eeeed"  # windows 4.5, 4.5
    assert take([6, 5, 4, 3, 2, 1, 0]) == "eeeeeed"  # six at most
    assert take([6]) == "e"
    turns.looked(0.5)
    turns.looked(0.7)
    assert whose() == "encoder"
    turns.looked(0.6)
    assert whose() == "both"
    turns.stepped(torch.tensor(1.0))
    assert not Aggressive(most=0, window=2).going_on


def test_what_rests_is_left_as_it_is() -> None:
    model = build(preset="aggressive", inner_steps=3, window=1)
    x = sentences(16)
    optimizer = model._optimizer()

    def moved(resting: torch.nn.Module | None) -> tuple[bool, bool]:
        before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
        optimizer.zero_grad(set_to_none=True)
        with at_rest(resting):
            model.loss(x, 1.0, rng()).backward()
            optimizer.step()
        changed = {name for name, p in model.network.named_parameters() if not p.equal(before[name])}
        return any(n.startswith("encoder") for n in changed), any(n.startswith("decoder") for n in changed)

    network = model.network
    assert moved(None) == (True, True)
    assert moved(network.decoder) == (True, False)  # although Adam has moments of it by now
    assert moved(network.encoder) == (False, True)
    assert all(p.requires_grad for p in network.parameters())


def test_the_learning_rate_is_halved_where_the_bound_has_stopped() -> None:
    plateau = Plateau(patience=2, hold=0.5)
    for loss, fraction, factor in (
        (3.0, 0.1, 1), (3.0, 0.2, 1), (3.1, 0.3, 1), (3.2, 0.6, 0.5), (3.3, 0.7, 0.5), (2.9, 0.8, 0.5), (3.0, 0.9, 0.5),
        (3.0, 0.95, 0.25),
    ):  # fmt: skip
        plateau.looked(torch.tensor(loss), fraction)
        assert plateau.factor == factor
    for _ in range(20):
        plateau.looked(torch.tensor(4.0), 1.0)
    assert plateau.factor == 2**-5
    model = build(schedule="plateau", optimizer="sgd", learning_rate=1.0, init_width=0.01)
    assert float(model.network.decoder.output.weight.abs().max()) <= 0.01
    assert 0.05 < float(model.network.encoder.embedding.weight.abs().max()) <= 0.1
    stage = model.stages(data_of(independent, SPACE, 50))[0]
    assert isinstance(stage, Gradient) and stage.schedule is not None and stage.schedule(0.9) == 1.0
    model.plateau.num_decays.fill_(3)
    assert stage.schedule(0.9) == 0.125


def test_the_fix_throws_the_decoder_away_and_keeps_the_encoder() -> None:
    model = build(preset="fix", num_steps=40)
    stages = model.stages(data_of(independent, SPACE, 50))
    assert [stage.name for stage in stages] == ["autoencoder", "new decoder", "fit"]
    assert [stage.num_steps for stage in stages if isinstance(stage, Gradient)] == [10, 30]
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        stages[1].run(rng())  # type: ignore[union-attr]
    for name, parameter in model.network.named_parameters():
        assert parameter.equal(before[name]) == name.startswith("encoder"), name


@pytest.mark.parametrize("preset", ["aggressive", "fix"])
def test_resuming_anywhere_gives_the_same_bits(preset: str, tmp_path: Path) -> None:
    changes = {"inner_steps": 4, "window": 2} if preset == "aggressive" else {}
    changes |= {"dropout": 0.2, "word_dropout": 0.2, "validate_every": 6}
    data = data_of(independent, SPACE, 50)
    whole = build(preset=preset, **changes)
    Trainer(seed=3).fit(whole, data)
    for stop_after in (5, 8, 17):
        count = SimpleNamespace(steps=0)

        def should_stop(count: Any = count, stop_after: int = stop_after) -> bool:
            count.steps += 1
            return bool(count.steps == stop_after)

        folder = tmp_path / str(stop_after)
        folder.mkdir()
        with pytest.raises(Interrupted):
            Trainer(folder=folder, seed=3, should_stop=should_stop).fit(build(preset=preset, **changes), data)
        resumed = build(preset=preset, **changes)
        Trainer(folder=folder, seed=3).fit(resumed, data)
        for name, tensor in whole.state_dict().items():
            assert tensor.equal(resumed.state_dict()[name]), (stop_after, name)


@pytest.mark.parametrize("preset", ["", "cyclical", "free_bits", "aggressive", "fix"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    assert set(card_of(LSTMVAE).presets) == {"cyclical", "free_bits", "aggressive", "fix"}
    for task in ("latent_language", "pcfg", "ptb", "other"):
        for track in ("smoke", "small", "medium", "paper"):
            LSTMVAE.Config(**card_of(LSTMVAE).resolve(task, track, preset))
    model = build(preset=preset)
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(LSTMVAE).capabilities)
    assert model.prior().event_shape == model.posterior(sentences(3)).event_shape == (2,)


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        build().sample(2, given=torch.tensor([0, 1]), rng=rng())
