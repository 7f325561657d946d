"""The grammar task: what each metric says of models whose quality is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from building import rng, task_of
from gmbench.errors import MissingCapability, UserError
from gmbench.evaluation import evaluate
from gmbench.measuring import Measured, measure
from gmbench.model import Data, Likelihood
from gmbench.task import Context, Draws
from gmbench.tasks.language.pcfg.language import Language


@cache
def make(grammar: str) -> Any:
    return task_of("pcfg", "smoke", grammar=grammar)


@cache
def data_of(grammar: str) -> Data:
    return make(grammar).data(0)


class Sampler:
    """The truth's samples, spoiled."""

    def __init__(self, truth: Language, spoil: str) -> None:
        self.truth, self.spoil = truth, spoil

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        x = self.truth.sample(num, rng=rng)
        for row in x if self.spoil != "repeated" else []:
            words = int((row > 1).sum())
            if self.spoil == "shuffled":
                row[:words] = row[:words][torch.randperm(words, generator=rng)]
            elif self.spoil == "truncated":
                row[words // 2 :] = 0
                row[words // 2] = 1
        return x[:5].repeat(num // 5, 1) if self.spoil == "repeated" else x


class WithLatents:
    """A model of the truth whose latents are of no use to it, or which says in them which sentence it is."""

    def __init__(self, truth: Language, slope: float) -> None:
        self.truth, self.slope = truth, slope

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def posterior(self, x: Tensor) -> Distribution:
        mean = self.slope * torch.stack([(x > 1).sum(1) - 10.0, 0 * x[:, 0].float()], 1)
        return Independent(Normal(mean, torch.ones(2)), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.truth.log_prob(x).float().expand(len(z), -1)


def measured(grammar: str, model: Any) -> Measured:
    return measure(make(grammar), model, 0)


@cache
def of_truth(grammar: str) -> Measured:
    return measured(grammar, make(grammar).truth)


@cache
def of_samples(spoil: str) -> dict[str, float]:
    found = measured("small", Sampler(make("small").truth, spoil)).merged.estimates
    return {key: one.value for key, one in found.items()}


@pytest.mark.parametrize("grammar", ["small", "deep", "classes"])
def test_the_truth_gets_its_nulls(grammar: str) -> None:
    found = of_truth(grammar)
    estimates = found.merged.estimates
    assert found.merged.headline == "excess_nats.exact" and estimates["excess_nats.exact"].value == pytest.approx(0)
    assert found.merged.per_point.shape == (200,)
    assert estimates["agreement.all"].value == 0 and estimates["grammaticality.n200"].value == 1
    for name in ("nll", "perplexity"):
        one, floor = estimates[f"{name}.oracle"], estimates[f"{name}.floor"]
        assert one.value == pytest.approx(estimates[f"{name}.exact"].value)
        assert one.stderr is not None and abs(one.value - floor.value) < 4 * one.stderr
    assert estimates["pseudo_perplexity"].value == pytest.approx(estimates["pseudo_perplexity.oracle"].value)
    assert estimates["pseudo_perplexity"].value < estimates["perplexity.exact"].value
    length = estimates["grammatical.words.n200"]
    assert abs(length.value - estimates["grammatical.words.floor"].value) < 4 * (length.stderr or 0)
    expected = {"latents", "low_resource"} if grammar == "classes" else {"latents", "low_resource", "guided"}
    assert set(found.unavailable) == expected


def test_the_floor_of_classes_adds_what_the_class_tells() -> None:
    floor = of_truth("classes").merged.estimates["nll.floor"]
    assert floor.value == pytest.approx(17.677, abs=0.015) and floor.stderr is not None and floor.stderr < 0.003
    assert of_truth("small").merged.estimates["perplexity.floor"].value == pytest.approx(5.4557, abs=1e-4)


def test_samples_are_told_from_the_truths_in_every_respect() -> None:
    good, shuffled, repeated, short = (of_samples(one) for one in ("not at all", "shuffled", "repeated", "truncated"))
    key = "divergence.mauve.k10.n200"
    assert good[key] > 0.9 and good[f"{key}.truth"] > 0.9
    assert max(shuffled[key], short[key]) < 0.2 and repeated[key] < 0.75
    assert good["grammaticality.n200"] == 1 and shuffled["grammaticality.n200"] < 0.2
    assert short["grammaticality.n200"] == 0 and "grammatical.words.n200" not in short
    assert repeated["grammaticality.n200"] == 1  # which is why diversity stands beside it
    for order, share in ((1, 0.8), (2, 0.3)):
        distinct = f"diversity.distinct{order}.n200"
        assert repeated[distinct] < share * good[distinct]
        assert good[distinct] == pytest.approx(good[f"{distinct}.truth"], rel=0.3)
    assert repeated["diversity.self_bleu4.refs20"] > 0.8 > 0.6 > good["diversity.self_bleu4.refs20"]


def test_a_model_of_another_grammar_is_told_where_it_agrees_badly() -> None:
    """Every closer but the right one gets a share that grows with the distance."""
    truth, task = make("deep").truth, make("deep")

    class Forgetful:
        def token_log_prob(self, x: Tensor) -> Tensor:
            parsed = truth.grammar.parse(x)
            heads = truth.grammar.heads[parsed.rules.clamp(min=0)]
            closing = torch.tensor([name.startswith("C") for name in truth.grammar.symbols])[heads] & (
                parsed.rules >= 0
            )
            behind = torch.arange(x.shape[1]) - parsed.origins
            return truth.token_log_prob(x) - torch.where(closing, behind / 50.0, 0.0)

    found = measured("deep", Forgetful()).merged.estimates
    x, expected = task.test, []
    for bounds in ((1, 3), (4, 7), (8, 15), (16, 31), (32, 256)):
        key = f"agreement.d{bounds[0]}+" if bounds[0] == 32 else f"agreement.d{bounds[0]}-{bounds[1]}"
        assert bounds[0] / 50 <= found[key].value <= bounds[1] / 50
        expected.append(found[key].value)
    assert expected == sorted(expected)
    words = float((x > 1).sum(1).double().mean())
    closers = int(found["agreement.all"].note.split()[0]) / len(x)
    assert found["excess_nats.exact"].value == pytest.approx(found["agreement.all"].value * closers / words)


def test_bounds_are_conservative_paired_and_kept_for_other_metrics() -> None:
    truth = make("small").truth
    useless, telling = (measured("small", WithLatents(truth, slope)).merged for slope in (0.0, 0.3))
    assert useless.headline == "excess_nats.iw20" and useless.per_point.shape == (50,)
    for key in ("excess_nats.iw20", "excess_nats.elbo"):
        one = useless.estimates[key]
        assert one.value == pytest.approx(0, abs=1e-5) and one.kind == "upper_bound"
        # what its latents say of x is paid and of no use: the bound is loose, and so the excess is above the truth's 0
        assert telling.estimates[key].value > 0.005
    assert telling.estimates["excess_nats.iw20"].value < telling.estimates["excess_nats.elbo"].value
    found = telling.estimates
    gap = found["nll.iw20.per_word"].value - found["nll.oracle.per_word"].value
    assert gap == pytest.approx(found["excess_nats.iw20"].value, abs=1e-6)
    assert found["kl.n200"].value > 0.3 and useless.estimates["kl.n200"].value == 0
    units = "active_units.above0.01.n200"
    assert found[units].value == 1 and useless.estimates[units].value == 0
    assert found["mutual_information.lower.n200"].value > 0.2
    assert found["mutual_information.log_n.n200"].value == pytest.approx(5.298, abs=1e-3)
    assert found["mutual_information.saturated.n200"].value == 0


def test_a_model_that_hears_the_class_is_told_from_one_that_does_not() -> None:
    truth = make("classes").truth

    class Deaf:
        def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
            return truth.sample(num, rng=rng)

    class Babbling(Deaf):
        def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
            return torch.tensor([[5, 6, 1] + [0] * 253]).repeat(num, 1)

    class Unconditional:
        def sample(self, num: int, *, rng: Generator) -> Tensor:
            return truth.sample(num, rng=rng)

    heard, deaf, babble = (measured("classes", one).merged.estimates for one in (truth, Deaf(), Babbling()))
    key = "guided.n200"
    for one in (heard, deaf):
        assert one["guided.floor"].value == 0.25
    assert abs(heard[key].value - heard[f"{key}.truth"].value) < 4 * (heard[key].stderr or 0) * 2**0.5
    assert heard[key].value > 0.4 and abs(deaf[key].value - 0.25) < 4 * (deaf[key].stderr or 0)
    assert heard["guided.accuracy.n200"].value > 0.45 > 0.35 > deaf["guided.accuracy.n200"].value
    assert babble[key].value == babble["guided.accuracy.n200"].value == 0
    assert "takes no `given`" in measured("classes", Unconditional()).unavailable["guided"]


def test_features_that_hold_the_posterior_reach_the_best_accuracy_and_noise_does_not() -> None:
    truth, task = make("classes").truth, make("classes")

    class Knowing:
        def encode(self, x: Tensor) -> Tensor:
            return truth.log_joint(x) - truth.log_prob(x)[:, None]

    class Blind:
        def encode(self, x: Tensor) -> Tensor:
            return torch.randn(len(x), 3, generator=rng(int(x.sum())))

    def accuracies(model: Any) -> dict[str, float]:
        found = task.measure("low_resource", model, Context(rng(), Draws(model, rng())))
        return {key: one.value for key, one in found.estimates.items()}

    knowing, blind = accuracies(Knowing()), accuracies(Blind())
    best = knowing["low_resource.bayes"]
    assert best == blind["low_resource.bayes"] == pytest.approx(0.546, abs=0.11)
    assert abs(knowing["low_resource.1000perclass"] - best) < 0.06
    assert abs(blind["low_resource.1000perclass"] - 0.25) < 0.1
    assert blind["low_resource.1000perclass.counts"] == knowing["low_resource.1000perclass.counts"] > 0.35
    assert knowing["low_resource.10perclass"] > 0.35
    with pytest.raises(MissingCapability, match="no classes"):
        make("small").measure("low_resource", Blind(), Context(rng(), Draws(Blind(), rng())))


def test_data_are_fixed_by_seed_and_test_sentences_by_version() -> None:
    task, again = make("classes"), task_of("pcfg", "smoke", grammar="classes")
    assert torch.equal(task.test, again.test)
    data = data_of("classes")
    assert data.train is not None and data.train.shape == (20_000, 256) and data.validation.shape == (2000, 256)
    assert data.num_classes == 4 and data.draw_labelled is not None
    x, classes = data.draw_labelled(3000, rng(1))
    assert torch.equal(x, data.draw(3000, rng(1)))
    # the classes are those of the sentences
    p = data.truth.class_probabilities(x)
    hits = (p.argmax(1) == classes).double()
    assert float(hits.mean()) == pytest.approx(0.546, abs=0.04)
    assert data_of("small").draw_labelled is None and data_of("small").num_classes == 0
    assert not torch.equal(task.data(1).train, data.train)


def test_a_bound_by_log_prob_keeps_its_kind() -> None:
    truth = make("small").truth

    class Bounded:
        likelihood = Likelihood("", "mine", "lower_bound")

        def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
            return truth.log_prob(x) - 1.0

    found = measured("small", Bounded()).merged
    assert found.headline == "excess_nats.mine" and found.estimates[found.headline].kind == "upper_bound"
    words = float((make("small").test > 1).sum(1).double().mean())
    assert found.estimates[found.headline].value == pytest.approx(1 / words)
    assert found.estimates["nll.mine"].value == pytest.approx(found.estimates["nll.oracle"].value + 1)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda x: x, ""),
        (lambda x: x[:, :20], "(number, 256) is expected"),
        (lambda x: np.where(np.arange(256) == 2, 999, x), "token 999 outside of 0 … 45"),
        (lambda x: np.where(np.arange(256) == 0, 0, x), "padding (token 0) belongs after the end"),
        (lambda x: x + 0.5, "tokens are whole numbers"),
    ],
    ids=["none", "length", "id", "padding", "fractions"],
)
def test_sentences_made_elsewhere_are_scored(gmbench: Any, spoil: Any, expected: str) -> None:
    np.save("s.npy", spoil(data_of("small").fixed[:300].numpy()))
    found = gmbench("score", "--task", "pcfg", "--track", "smoke", "--samples", "s.npy", "--json")
    if expected:
        assert found.code == 2 and expected in found.err and found.err.count("\n") == 1
    else:
        assert found.json["metrics"]["grammaticality.n200"]["value"] == 1 and found.json["headline"] == ""


def test_numbers_that_are_no_log_probabilities_of_tokens_are_refused() -> None:
    """A score off by one position would be summed as the likelihood of other sentences."""
    truth = make("small").truth

    def scored(change: Any) -> Measured:
        return measure(make("small"), SimpleNamespace(token_log_prob=lambda x: change(truth.token_log_prob(x), x)), 0)

    assert scored(lambda log_p, x: log_p).merged.estimates["excess_nats.exact"].value == 0
    for change, message in (
        (lambda log_p, x: log_p[:, 1:], r"shape \(\d+, 255\) where \(\d+, 256\) is expected"),
        (lambda log_p, x: log_p.masked_fill(x == 0, -0.1), "padding .* a log p other than 0"),
        (lambda log_p, x: torch.where(x > 0, log_p + 0.5, 0.0), "a token's log p is at most 0"),
        (lambda log_p, x: log_p / 0, r"token_log_prob gave NaN at \d+ of \d+ positions"),
    ):
        with pytest.raises(UserError, match=message):
            scored(change)
    with pytest.raises(UserError, match="score_text gave shape"):
        measure(make("small"), SimpleNamespace(score_text=lambda texts: torch.zeros(3)), 0)
    with pytest.raises(UserError, match=r"score_text gave 0\.5: the log p of a discrete point is at most 0"):
        measure(make("small"), SimpleNamespace(score_text=lambda texts: torch.full((len(texts),), 0.5)), 0)


def test_estimators_of_one_name_are_told_apart() -> None:
    """A model may call its own bound as the task calls the bound that it makes of the model's parts."""
    truth, prior = make("small").truth, Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def score(x: Tensor) -> Tensor:
        return truth.log_prob(x).float()

    model = SimpleNamespace(
        likelihood=Likelihood("", "elbo", "lower_bound"),
        log_prob=lambda x, *, rng: score(x) - 5,
        prior=lambda: prior,
        posterior=lambda x: prior.expand((len(x),)),
        log_likelihood=lambda x, z: score(x).expand(z.shape[:2]) - 1,
    )
    found = measure(make("small"), model, 0).merged
    words = float((make("small").test[:50] > 1).sum(1).double().mean())
    assert found.headline == "excess_nats.own.elbo" and found.per_point is not None
    assert float(found.per_point.double().mean()) == pytest.approx(5 / words, rel=1e-5)
    expected = {"excess_nats.own.elbo": 5, "excess_nats.elbo": 1, "excess_nats.iw20": 1}
    assert {key: found.estimates[key].value * words for key in expected} == pytest.approx(expected, rel=1e-4)


def test_a_conditional_likelihood_above_1_makes_no_bound() -> None:
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    model = SimpleNamespace(
        prior=lambda: prior,
        posterior=lambda x: prior.expand((len(x),)),
        log_likelihood=lambda x, z: z.new_full(z.shape[:2], 5.0),
    )
    with pytest.raises(UserError, match="log_likelihood gave 5"):
        measure(make("small"), model, 0)


def test_a_text_model_and_an_autoencoder_from_elsewhere_are_measured(tmp_path: Path) -> None:
    truth = make("small").truth
    numbers = {word: number for number, word in enumerate(truth.space.words)}

    class Reader:
        def score_text(self, texts: list[str]) -> Any:
            rows = torch.zeros(len(texts), 256, dtype=torch.long)
            for row, text in zip(rows, texts, strict=True):
                ids = [*(numbers[word] for word in text.split()), 1]
                row[: len(ids)] = torch.tensor(ids)
            return truth.log_prob(rows).numpy()

    class Latent:
        def prior(self) -> Distribution:
            return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

        def posterior(self, x: Tensor) -> Distribution:
            return Independent(Normal(torch.zeros(len(x), 2), torch.ones(len(x), 2)), 1)

        def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
            return truth.log_prob(x).expand(z.shape[:2])

    for model, key in ((Reader(), "text"), (Latent(), "iw20"), (Latent(), "elbo")):
        found = evaluate(model, task="pcfg", track="smoke", name=f"some_{key}", out=tmp_path)
        assert found.metrics[f"excess_nats.{key}"].value == pytest.approx(0, abs=1e-6)
