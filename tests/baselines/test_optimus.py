"""Optimus: its likelihoods against plain loops and quadrature, its start from a GPT and a BERT, its objective."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import gelu, layer_norm, log_softmax

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.gpt.model import GPT
from gmbench.baselines.latent.optimus import model as module
from gmbench.baselines.latent.optimus.model import Optimus
from gmbench.baselines.latent.optimus.objective import beta, thresholded
from gmbench.baselines.masked.bert.model import BERT
from gmbench.errors import MissingCapability, UserError
from gmbench.metrics.importance_bound import evidence_bound, importance_bound
from gmbench.model import CAPABILITIES, Data, Model, offers
from gmbench.plan import Request, make_plan
from gmbench.plugin import ModelCard
from gmbench.registry import discover
from gmbench.runner import Options, load_fitted, new_model, run
from gmbench.spaces import TokenSequence
from gmbench.tasks.language.latent_language.language import ProbitPolya
from gmbench.training import Trainer

SPACE = TokenSequence(6, 8)
TINY = TokenSequence(4, 3)
SIZE = {"num_layers": 2, "dim": 8, "num_heads": 2}
POLYA = ProbitPolya(2, 6, interleaved=False, num_latents=2)


def build(space: TokenSequence = SPACE, **changes: Any) -> Optimus:
    return from_card(Optimus, space, "pcfg", **{**SIZE, "latent_dim": 2, **changes})


def parent(kind: type[GPT] | type[BERT], space: TokenSequence = SPACE, **changes: Any) -> Any:
    """A GPT or a BERT with large random weights, which are also those that it keeps."""
    return disturbed(from_card(kind, space, "pcfg", **{**SIZE, **changes}), seed=5)


def disturbed(model: Any, seed: int = 0, std: float = 0.4) -> Any:
    """The model with weights far from where they begin, which are also those that it keeps."""
    with torch.no_grad():
        for index, parameter in enumerate(model.network.parameters()):
            parameter.add_(std * torch.randn(parameter.shape, generator=rng(seed + index)))
    model.best.network.load_state_dict(model.network.state_dict())
    return model.eval()


def sharp(space: TokenSequence = SPACE, **changes: Any) -> Optimus:
    found: Optimus = disturbed(build(space, **changes))
    return found


def sentences(num: int, seed: int = 1) -> Tensor:
    """Rows of 0 to 7 of four words, EOS, and padding, (num, 8)."""
    words = torch.randint(2, 6, (num, 8), generator=rng(seed))
    length = torch.randint(0, 8, (num, 1), generator=rng(seed + 1))
    place = torch.arange(8)
    return torch.where(place < length, words, torch.where(place == length, 1, 0))


def norm(x: Tensor, by: Any) -> Tensor:
    return layer_norm(x, x.shape[-1:], by.weight, by.bias)


def by_hand(model: Optimus, x: list[int], z: Tensor) -> Tensor:
    """log p(x_t | x_<t, z) of a sentence x = [words …, EOS], (T,), position after position and head after head."""
    decoder = model.best.network.decoder
    gpt, num_heads = decoder.gpt, model.config.num_heads
    blocks, width = gpt.body.blocks, model.config.dim // num_heads
    memory = None if decoder.memory is None else (decoder.memory.weight @ z).view(len(blocks), num_heads, width)
    added = 0.0 if decoder.embedding is None else decoder.embedding.weight @ z
    h = torch.stack([gpt.tokens.weight[id] + gpt.positions.weight[t] + added for t, id in enumerate([0, *x[:-1]])])
    for number, block in enumerate(blocks):
        inner = block.attention.inner
        q, k, v = (inner.weight @ norm(h, block.attention_norm).T + inner.bias[:, None]).T.chunk(3, 1)
        out = torch.zeros_like(h)
        for t, head in itertools.product(range(len(x)), range(num_heads)):
            part = slice(head * width, (head + 1) * width)
            keys, values = k[: t + 1, part], v[: t + 1, part]
            if memory is not None:
                keys, values = (torch.cat([memory[number, head][None], one]) for one in (keys, values))
            weights = (keys @ q[t, part] / math.sqrt(width)).softmax(0)
            out[t, part] = weights @ values
        h = h + out @ block.attention.out.weight.T + block.attention.out.bias
        units = gelu(norm(h, block.norm) @ block.inner.weight.T + block.inner.bias)
        h = h + units @ block.out.weight.T + block.out.bias
    logits = norm(h, gpt.body.norm) @ gpt.tokens.weight[1:6].T
    return log_softmax(logits, 1)[torch.arange(len(x)), torch.tensor(x) - 1]


@pytest.mark.parametrize("ways", [(True, True), (True, False), (False, True)], ids=str)
@torch.no_grad()
def test_log_likelihood_is_that_of_a_plain_loop(ways: tuple[bool, bool]) -> None:
    model, x = sharp(memory=ways[0], embedding=ways[1]), sentences(6)
    z = torch.randn(3, 6, 2, generator=rng(2))
    each = [(row[row != 0].tolist(), one) for some in z for row, one in zip(x, some, strict=True)]
    expected = [by_hand(model, words, one).sum() for words, one in each]
    found = model.log_likelihood(x, z)
    torch.testing.assert_close(found, torch.stack(expected).view(3, 6), atol=1e-4, rtol=1e-5)
    assert float((found[0] - found[1]).abs().min()) > 1e-3  # z matters to every sentence


def test_blocks_and_padding_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(), sentences(9)
    z = torch.randn(5, 9, 2, generator=rng(2))
    found, q = model.log_likelihood(x, z), model.posterior(x)
    for tokens in (1, 20, 50):
        monkeypatch.setattr(module, "TOKENS", tokens)
        torch.testing.assert_close(model.log_likelihood(x, z), found)
        torch.testing.assert_close(model.posterior(x).mean, q.mean)
    monkeypatch.setattr("gmbench.baselines.latent.optimus.network.LOGITS", 7)
    torch.testing.assert_close(model.log_likelihood(x, z), found)
    short = x[(x != 0).sum(1) < 6]
    torch.testing.assert_close(model.posterior(short[:, :6]).mean, model.posterior(short).mean)


@pytest.mark.parametrize("which", ["memory", "embedding"])
def test_both_ways_of_the_latent_are_used_and_trained(which: str) -> None:
    model, x = sharp(), sentences(20)
    z = torch.randn(1, 20, 2, generator=rng(2))
    model.loss(x, 1.0, rng()).backward()  # type: ignore[no-untyped-call]
    way = getattr(model.network.decoder, which)
    assert float(way.weight.grad.norm()) > 1e-3
    before = model.log_likelihood(x, z)
    with torch.no_grad():
        getattr(model.best.network.decoder, which).weight.mul_(-1)
    assert float((model.log_likelihood(x, z) - before).abs().median()) > 0.05
    assert getattr(build(**{which: False}).network.decoder, which) is None


def every_sentence() -> Tensor:
    """All of TINY: words 2 and 3, at most two of them, then EOS; and three words, cut off."""
    ended = [[*words, 1] + [0] * (2 - n) for n in range(3) for words in itertools.product((2, 3), repeat=n)]
    return torch.tensor(ended + [list(words) for words in itertools.product((2, 3), repeat=3)])


def test_bounds_lie_below_log_p_and_the_gap_is_the_divergence_from_the_true_posterior() -> None:
    """With one latent log p(x) = log ∫ p(z) p(x | z) dz is a sum over a grid, and so is KL(q ‖ p(z | x))."""
    model, x = sharp(TINY, latent_dim=1), every_sentence()
    grid = torch.linspace(-9, 9, 1801)
    width = float(grid[1] - grid[0])
    log_joint = model.log_likelihood(x, grid[:, None, None].expand(-1, len(x), 1)).double()
    log_joint += model.prior().log_prob(grid[:, None])[:, None]
    log_p = log_joint.logsumexp(0) + math.log(width)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
    q = model.posterior(x)
    log_q = q.base_dist.log_prob(grid[:, None, None])[:, :, 0].double()  # (grid, N)
    gap = (log_q.exp() * (log_q - (log_joint - log_p))).sum(0) * width  # KL(q ‖ p(z | x))
    parts = (model.prior(), model.posterior, model.log_likelihood, x)
    bound = evidence_bound(*parts, num_draws=4000, rng=rng(3))
    torch.testing.assert_close(bound.elbo, log_p - gap, atol=0.06, rtol=0)
    assert bool((bound.elbo < log_p).all()) and float(gap.max()) > 0.05
    tighter = importance_bound(*parts, num_importance=4000, rng=rng(4))
    assert float((tighter - log_p).abs().mean()) < 0.05 and bool((tighter > bound.elbo).all())


@torch.no_grad()
def test_the_decoder_begins_as_the_gpt_and_the_encoder_as_the_bert() -> None:
    gpt, bert, model, x = parent(GPT), parent(BERT), build(memory=False), sentences(12)
    model.warm_start("decoder", gpt)
    model.warm_start("encoder", bert)
    for network in (model.network, model.best.network):
        assert network.decoder.embedding is not None
        network.decoder.embedding.weight.zero_()
        assert network.encoder.bert.eval().hidden(x).equal(bert.best.network.eval().hidden(x))
    z = torch.randn(3, 12, 2, generator=rng(2))
    expected = gpt.log_prob(x, rng=rng()).expand(3, -1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected, atol=1e-5, rtol=1e-6)
    model.eval()
    assert float(model.loss(x, 0.0, rng())) == pytest.approx(-float(expected.mean()), abs=1e-4)
    first = bert.best.network.hidden(x)[:, 0]
    encoder = model.network.encoder
    log_odds = (first @ encoder.pool.weight.T + encoder.pool.bias).tanh() @ encoder.head.weight.T
    torch.testing.assert_close(model.encode(x), log_odds[:, :2])
    torch.testing.assert_close(model.posterior(x).stddev, (log_odds[:, 2:] / 2).exp())
    with_memory = build()
    with_memory.warm_start("decoder", gpt)
    for name, tensor in gpt.best.network.state_dict().items():
        assert with_memory.best.network.decoder.gpt.state_dict()[name].equal(tensor)


@pytest.mark.parametrize(
    ("name", "made", "expected"),
    [
        ("decoder", lambda: parent(GPT, dim=16), "it has dim=16, and optimus 8; --set dim=16"),
        ("encoder", lambda: parent(BERT, num_layers=1), "its encoder from this BERT: it has num_layers=1"),
        ("decoder", lambda: parent(GPT, num_heads=4), "num_heads=4"),
        ("decoder", lambda: parent(BERT), "its decoder from this BERT: it must be a GPT"),
        ("middle", lambda: parent(GPT), "inputs encoder and decoder, not 'middle'"),
        ("decoder", lambda: parent(GPT, TokenSequence(7, 8)), "vocab_size 7, not 6,"),
        ("encoder", lambda: parent(BERT, TokenSequence(6, 9)), "max_length 9, not 8,"),
        ("encoder", lambda: parent(BERT, TokenSequence(6, 8, words=tuple("paxyzw"))), "sequences of other words"),
        ("decoder", lambda: parent(GPT, num_classes=3), "num_classes=0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name: str, made: Any, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        build().warm_start(name, made())
    assert expected in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"memory": False, "embedding": False}, "keep the latent from the decoder"),
        ({"num_heads": 3}, "num_heads=3 does not divide dim=8"),
        ({"zero": 0.8, "ramp": 0.3}, "sum must not exceed 1"),
    ],
)
def test_configs_that_cannot_be(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        build(**changes)


def test_the_weight_of_the_kl_term() -> None:
    def values(annealing: Any, fractions: tuple[float, ...], num_cycles: int = 1) -> list[float]:
        return [beta(f, annealing, num_cycles=num_cycles, zero=0.5, ramp=0.25) for f in fractions]

    assert values("monotone", (0.0, 0.49, 0.5, 0.625, 0.75, 0.99)) == [0, 0, 0, 0.5, 1, 1]
    assert values("cyclical", (0.2, 0.3125, 0.4, 0.5, 0.7, 0.8125, 0.9), 2) == [0, 0.5, 1, 0, 0, 0.5, 1]
    assert values("cyclical", (0.625, 0.9)) == [0.5, 1] and values("none", (0.0, 0.9)) == [1, 1]


def test_latents_under_the_threshold_cost_nothing_and_are_not_moved() -> None:
    kl = torch.tensor([[0.1, 0.5, 0.3], [0.4, 0.2, 0.25]], requires_grad=True)
    found = thresholded(kl, 0.25)  # .25 is not above itself
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == pytest.approx((0.5 + 0.3 + 0.4) / 2)
    assert kl.grad is not None and (2 * kl.grad).tolist() == [[0, 1, 1], [1, 0, 0]]
    kl = kl.detach()
    assert float(thresholded(kl, 0.0)) == pytest.approx(1.75 / 2) and float(thresholded(kl, 1.0)) == 0


@torch.no_grad()
def test_the_loss_is_the_negative_elbo_with_its_parts() -> None:
    model, x = sharp(), sentences(6)
    q = model.posterior(x)
    z = q.mean + q.stddev * torch.randn(6, 2, generator=rng(4))
    reconstruction = model.log_likelihood(x, z[None])[0].mean()
    for weight in (0.0, 0.3, 1.0):
        expected = -reconstruction + weight * kl_divergence(q, model.prior()).mean()
        torch.testing.assert_close(model.loss(x, weight, rng(4)), expected)
    parts = kl_divergence(q.base_dist, model.prior().base_dist)
    threshold = float(parts.median())
    low = sharp(free_bits=threshold).loss(x, 1.0, rng(4))
    torch.testing.assert_close(low, -reconstruction + parts[parts > threshold].sum() / 6)


def test_what_bert_predicts_with_is_neither_trained_nor_used() -> None:
    bert, model = parent(BERT), build(num_steps=12, batch_tokens=40, validate_every=4)
    model.warm_start("encoder", bert)
    Trainer(seed=0).fit(model, Data(SPACE, None, lambda num, generator: sentences(num, 7), sentences(40, 8)))
    still = model.network.encoder.bert.state_dict()
    kept = {name for name, tensor in bert.best.network.state_dict().items() if still[name].equal(tensor)}
    heads = {f"{part}.{name}" for part in ("head", "head_norm") for name in ("weight", "bias")} | {"bias"}
    assert kept == heads
    assert {name for name, p in model.network.encoder.bert.named_parameters() if not p.requires_grad} == heads


@torch.no_grad()
def test_generation_with_a_cache_is_generation_without() -> None:
    model = sharp()
    z = 2 * torch.randn(12, 2, generator=rng(8))
    found = model.decode(z)
    SPACE.validate(found)
    assert len(found.unique(dim=0)) > 2
    for row, one in zip(found[:6], z, strict=False):
        tokens = row[row != 0].tolist()
        for t in range(min(len(tokens), 7)):
            scores = [float(by_hand(model, [*tokens[:t], other], one)[t]) for other in range(1, 6)]
            assert scores.index(max(scores)) + 1 == tokens[t]
    assert model.reconstruct(found).equal(model.decode(model.encode(found)))
    stream = build(TokenSequence(6, 8, ends=False)).sample(5, rng=rng(1))
    TokenSequence(6, 8, ends=False).validate(stream)


def test_samples_follow_the_probabilities_of_first_words() -> None:
    model, num = sharp(), 6000
    x = model.sample(num, rng=rng(9))
    SPACE.validate(x)
    first = torch.tensor([[token, 0, 0, 0, 0, 0, 0, 0] for token in range(1, 6)])  # scored as far as they go
    z = torch.randn(10_000, 1, 2, generator=rng(10)).expand(-1, 5, -1)
    expected = model.log_likelihood(first, z).exp().mean(0).double() * num
    counts = x[:, 0].bincount(minlength=6)[1:]
    assert float(((counts - expected).square() / expected).sum()) < 4 + 7 * math.sqrt(8)
    assert model.sample(30, rng=rng(1)).equal(model.sample(30, rng=rng(1)))


def test_bounds_on_a_known_language_approach_its_log_p_from_below() -> None:
    size = {"num_layers": 1, "dim": 16, "num_heads": 2}
    model = build(POLYA.space, **size, num_steps=300, batch_tokens=500, learning_rate=0.01, validate_every=25)
    validation = POLYA.sample(200, rng=rng(99))
    Trainer(seed=0).fit(model, Data(POLYA.space, None, lambda num, g: POLYA.sample(num, rng=g), validation))
    x = POLYA.sample(200, rng=rng(11))
    parts = (model.prior(), model.posterior, model.log_likelihood, x)
    excess = []
    for num in (1, 10, 100):
        gap = POLYA.log_prob(x) - importance_bound(*parts, num_importance=num, rng=rng(12))
        assert float(gap.mean()) > -3 * float(gap.std()) / math.sqrt(len(x))
        excess.append(float(gap.mean()))
    loose = evidence_bound(*parts, num_draws=5, rng=rng(13))
    assert excess[0] >= excess[1] >= excess[2] - 1e-3 and excess[2] < 0.4
    assert 12 * math.log(2) - POLYA.entropy > 0.99  # what words at random lose
    assert float(model.best.loss) == pytest.approx(-float(loose.elbo.mean()), abs=0.5)


def test_only_full_bounds_and_the_last_step_are_candidates() -> None:
    for ramp, num_looks in ((0.1, 2), (0.25, 1), (0.5, 1)):  # with .25 the weight is 1 from the sixteenth step on
        model = build(num_steps=20, batch_tokens=30, validate_every=5, zero=0.5, ramp=ramp)
        losses: list[Tensor] = []
        offer = model.best.offer

        def offering(network: nn.Module, loss: Tensor, offer: Any = offer, losses: list[Tensor] = losses) -> None:
            losses.append(loss)
            offer(network, loss)

        model.best.offer = offering  # type: ignore[method-assign]
        Trainer(seed=0).fit(model, Data(SPACE, None, lambda num, g: sentences(num, 7), sentences(30, 8)))
        assert len(losses) == num_looks and model.best.loss == min(losses)


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_s_sizes_are_those_of_its_inputs(track: str) -> None:
    mine, registry = card_of(Optimus), discover()
    assert set(mine.presets) == {"random"} and mine.inputs_for("pcfg", "random") == {}
    model = build()
    assert {name for name in CAPABILITIES if offers(model, name)} == set(mine.capabilities)
    for task in ("pcfg", "latent_language", "ptb", "wikitext2", "snli", "yahoo", "yelp"):
        own = mine.resolve(task, track)
        Optimus.Config(**own)
        inputs = mine.inputs_for(task)
        assert list(inputs) == ["encoder", "decoder"]
        for wanted in inputs.values():
            other = registry.model(wanted.model).card
            assert isinstance(other, ModelCard)
            theirs = {**other.resolve(task, track), **wanted.config, **wanted.tracks.get(track, {})}  # type: ignore[call-overload]
            assert [own[name] for name in SIZE] == [theirs[name] for name in SIZE], (task, track, wanted.model)
            # the seed of no child: a corpus of its own where there are many
            assert wanted.seed == (1000 if task in ("pcfg", "latent_language") else None)
            if task == "ptb" and track == "medium" and wanted.model == "gpt":
                assert theirs == other.resolve(task, track)  # the row `gpt` itself


def test_a_run_starts_from_what_was_trained_on_a_separate_corpus(tmp_path: Path) -> None:
    request = Request("latent_language", "optimus", track="smoke", out=tmp_path)
    with pytest.raises(UserError, match=r"input 'encoder' has not been run; .*--model bert --seed 1000"):
        run(request)
    plan = make_plan(request)
    made = run(request, Options(with_inputs=True))
    assert made.status == "done" and made.cost.parents_process_seconds > 0
    kept = load_fitted(plan)
    gpt, bert = (load_fitted(plan.inputs[name]) for name in ("decoder", "encoder"))
    assert isinstance(kept, Optimus) and isinstance(gpt, GPT) and isinstance(bert, BERT)
    untrained: Model = new_model(plan)
    assert isinstance(untrained, Optimus)

    def distance(one: Any, other: Any) -> float:
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))

    mine, fresh = kept.best.network, untrained.best.network
    assert distance(mine.encoder.bert, bert.best.network) < 0.7 * distance(mine.encoder.bert, fresh.encoder.bert)
    assert distance(mine.decoder.gpt, gpt.best.network) < 0.7 * distance(mine.decoder.gpt, fresh.decoder.gpt)
    same_row, another = make_plan(replace(request, seed=4)), make_plan(replace(request, model="optimus+random"))
    assert same_row.parents == plan.parents and same_row.row_id == plan.row_id != another.row_id


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        build().sample(2, given=torch.tensor([0, 1]), rng=rng())
