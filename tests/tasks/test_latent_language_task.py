"""The latent language as a task: what its metrics say of the truth, of plain models, and of scores that cheat."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from building import rng, task_of
from gmbench.consistency import beats_the_truth
from gmbench.estimate import Estimate
from gmbench.measuring import Measured, measure
from gmbench.model import Likelihood
from gmbench.task import Task
from gmbench.tasks.language.latent_language.language import ONE, ZERO, ProbitPolya
from gmbench.tasks.language.latent_language.travel import correlation, moves, on_the_line

SIZE = "4x12"


@cache
def make(blocks: str = "interleaved", track: str = "small", size: str = SIZE) -> Task:
    made: Task = task_of("latent_language", track, size=size, blocks=blocks)
    return made


def truth_of(task: Task) -> ProbitPolya:
    truth: ProbitPolya = task.data(0).truth
    return truth


@cache
def measured_truth() -> Measured:
    return measure(make(), truth_of(make()), 0)


class Scores:
    """A model that offers scores and nothing else."""

    def __init__(self, score: Any, kind: Any = "exact") -> None:
        self.score, self.likelihood = score, Likelihood("", "planted", kind)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        return self.score(x)


class Coin:
    """Fair coins, which know the length."""

    def token_log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x >= ZERO, -math.log(2), 0.0)


class Collapsed:
    """Latents that know nothing, and a decoder that does not read them."""

    def __init__(self, truth: ProbitPolya) -> None:
        self.truth, self.prior = truth, truth.prior

    def posterior(self, x: Tensor) -> Any:
        return self.truth.prior().expand((len(x),))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.truth.log_prob(x).expand(len(z), -1)

    def decode(self, z: Tensor) -> Tensor:
        return self.truth.decode(torch.ones_like(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.truth.decode(torch.ones(len(x), self.truth.num_latents))


def headline(found: Measured) -> Estimate:
    return found.merged.estimates[found.merged.headline]


def test_the_truth_has_its_null_and_its_own_latents() -> None:
    found, truth = measured_truth().merged, truth_of(make())
    assert not measured_truth().unavailable and found.headline == "excess_nats.exact"
    values = {key: one.value for key, one in found.estimates.items()}
    assert values["excess_nats.exact"] == 0 and found.per_point.abs().max() == 0 and len(found.per_point) == 500
    assert values["nll.floor"] == pytest.approx(27.7131, abs=1e-4)
    assert values["perplexity.floor"] == pytest.approx(math.exp(truth.entropy / 48))
    gap = found.estimates["excess_nats.elbo"]  # the Gaussian's bound loses what quadrature says, a word
    assert gap.stderr is not None and abs(gap.value - truth.evidence_gap / 48) < 4 * gap.stderr
    assert (gap.kind, found.estimates["excess_nats.iw500"].kind) == ("upper_bound", "upper_bound")
    for key, expected in (("nll.exact", truth.entropy), ("kl.n2000", truth.information), ("reconstruction.nats", 24.0)):
        one = found.estimates[key]
        assert one.stderr is not None and abs(one.value - expected) < 4 * one.stderr + 0.02, key
    assert values["active_units.above0.01.n2000"] == values["active_units.truth"] == 4
    assert values["mutual_information.truth"] == truth.information
    assert values["mutual_information.log_n.n2000"] == math.log(2000)
    assert values["mutual_information.saturated.n2000"] == 0
    assert values["interpolation.monotone"] == 1
    assert values["pseudo_perplexity"] == values["pseudo_perplexity.truth"] < values["perplexity.exact"]
    # k of 12 is uniform: the majority is wrong in min(k, 12 - k) of them
    one = found.estimates["reconstruction.wrong"]
    assert one.stderr is not None and abs(one.value - 3 / 13 * (12 + 2) / 14) < 4 * one.stderr
    for name in ("interpolation.correlation", "arithmetic.correlation", "interpolation.moved", "reconstruction.wrong"):
        assert found.estimates[name] == found.estimates[f"{name}.truth"]
    assert 0.8 < values["interpolation.correlation"] < 0.95  # all or none of a block's words, against shares of them


def test_a_fair_coin_is_above_the_entropy_by_what_it_should() -> None:
    found, truth = measure(make(), Coin(), 0), truth_of(make())
    one = headline(found)
    assert one.stderr is not None and abs(one.value - (math.log(2) - truth.entropy / 48)) < 4 * one.stderr
    assert one.value > 20 * one.stderr
    assert float(found.merged.per_point.mean()) == pytest.approx(one.value, rel=1e-5)
    assert found.merged.estimates["perplexity.exact"].value == pytest.approx(2, rel=1e-6)
    assert set(found.unavailable) == {"latents", "reconstruction", "interpolation", "arithmetic", "pseudo_perplexity"}


def test_latents_that_collapsed_are_seen_although_the_likelihood_is_perfect() -> None:
    found = measure(make(), Collapsed(truth_of(make())), 0).merged
    values = {key: one.value for key, one in found.estimates.items()}
    assert found.headline == "excess_nats.iw500" and abs(values["excess_nats.iw500"]) < 1e-9
    assert values["kl.n2000"] == 0 and values["active_units.above0.01.n2000"] == 0
    assert abs(values["mutual_information.upper.n2000"]) < 1e-9
    assert values["reconstruction.nats"] == pytest.approx(values["nll.iw500"])
    assert 0.45 < values["reconstruction.wrong"] < 0.55 and values["reconstruction.wrong.truth"] < 0.3
    for metric in ("interpolation", "arithmetic"):
        constant = found.estimates[f"{metric}.correlation"]
        assert constant.value == 0 and constant.note == "one side is constant"
    assert values["interpolation.moved"] == 0 and "interpolation.monotone" not in values
    assert values["interpolation.moved.truth"] > 0.3 and values["interpolation.monotone.truth"] == 1


def test_latents_in_the_wrong_places_do_not_follow() -> None:
    truth = truth_of(make())

    class Shuffled(Collapsed):
        posterior = staticmethod(truth.posterior)

        def decode(self, z: Tensor) -> Tensor:
            return truth.decode(z[:, [1, 2, 3, 0]])

    found = measure(make(), Shuffled(truth), 0).merged.estimates
    for key in ("interpolation.correlation", "arithmetic.correlation"):
        one = found[key]
        assert one.stderr is not None and abs(one.value) < 4 * one.stderr < found[f"{key}.truth"].value


def looks_ahead(truth: ProbitPolya, x: Tensor) -> Tensor:
    """log p of each word given those before and the next one of its block too, summed: a mask that is off by one."""
    ones = (truth.blocks(x) == ONE).double()  # (B, A, T)
    after = torch.nn.functional.pad(ones[..., 1:], (0, 1))
    seen = torch.arange(truth.block_length) + torch.tensor([1.0] * (truth.block_length - 1) + [0.0])
    p_one = (ones.cumsum(-1) - ones + after + 1) / (seen + 2)
    return torch.where(ones > 0, p_one.log(), (-p_one).log1p()).sum((1, 2))


def faults(truth: ProbitPolya) -> dict[str, Scores]:
    num = truth.num_words
    return {
        "the denominator counts BOS": Scores(lambda x: truth.log_prob(x) * (num + 1) / (num + 2)),
        "the first word is not scored": Scores(lambda x: truth.token_log_prob(x)[:, 1:].sum(1)),
        "a bound with a constant left out": Scores(
            lambda x: truth.log_prob(x) - truth.evidence_gap + 0.25, "lower_bound"
        ),
        "KL counted at half its weight": Scores(lambda x: truth.log_prob(x) + truth.information / 2, "lower_bound"),
        "the next word is seen": Scores(lambda x: looks_ahead(truth, x)),
    }


@pytest.mark.parametrize("blocks", ["interleaved", "concatenated"])
def test_scores_that_cheat_are_below_the_truth_and_flagged(blocks: str) -> None:
    task = make(blocks)
    for name, model in faults(truth_of(task)).items():
        one = headline(measure(task, model, 0))
        assert one.stderr is not None and one.value < -3 * one.stderr, name
        assert beats_the_truth(one, make().card.metrics["excess_nats"]), name
    honest = headline(measure(task, Scores(truth_of(task).log_prob), 0))
    assert not beats_the_truth(honest, make().card.metrics["excess_nats"])
    assert not beats_the_truth(headline(measured_truth()), make().card.metrics["excess_nats"])


def test_bounds_are_made_once_for_both_metrics_and_anew_for_each_model() -> None:
    task, calls = make(track="smoke"), []

    class Counting(Collapsed):
        def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
            calls.append(z.shape[0] * z.shape[1])
            return super().log_likelihood(x, z)

    first = measure(task, Counting(truth_of(task)), 0)
    assert sum(calls) == 100 * (20 + 2) + 100 * 2  # the bounds once, and the reconstructions
    again = measure(task, Counting(truth_of(task)), 0)
    assert sum(calls) == 2 * 100 * (20 + 2 + 2) and again.merged.estimates == first.merged.estimates


def test_data_follow_seed_and_version() -> None:
    task = make(track="smoke")
    data, other = task.data(0), task.data(1)
    assert data.train is not None and other.train is not None
    assert len(data.train) == 10_000 and len(data.validation) == 1000
    assert torch.equal(data.train, task.data(0).train) and not torch.equal(data.train, other.train)
    rows = {tuple(row) for row in data.train.tolist()}
    assert all(tuple(row) in rows for row in data.draw(50, rng()).tolist())
    assert torch.equal(make(track="small").points, make(track="smoke").points)  # the same for every budget and seed
    assert not torch.equal(make("concatenated").points, make().points)


def test_correlation_is_pearsons_with_the_jackknife_over_rows() -> None:
    a = torch.rand(40, 5, generator=rng(1)).double()
    b = a + torch.rand(40, 1, generator=rng(2)) + torch.rand(40, 5, generator=rng(3))
    found = correlation(a, b)
    assert found.value == pytest.approx(np.corrcoef(a.flatten(), b.flatten())[0, 1], abs=1e-12)
    kept = [torch.arange(40) != row for row in range(40)]
    left_out = [np.corrcoef(a[rows].flatten(), b[rows].flatten())[0, 1] for rows in kept]
    assert found.stderr == pytest.approx(math.sqrt(39 / 40 * np.sum((left_out - np.mean(left_out)) ** 2)), rel=1e-6)
    assert correlation(a, 3 - 2 * a).value == pytest.approx(-1)
    assert correlation(a[:2], a[:2]).stderr is None


def test_moves_are_those_of_blocks_whose_ends_differ() -> None:
    path = torch.tensor([[[0.0, 1, 0, 0.5], [0.5, 1, 0.5, 0.2], [0.5, 0.5, 0, 0.5], [1, 0, 0.5, 0.5]]])
    moved, straight = moves(path)
    assert moved.tolist() == [[True, True, True, False]] and straight.tolist() == [[True, True, False, False]]
    line = on_the_line(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), 5)
    torch.testing.assert_close(line[0], torch.tensor([[0, 2.0], [0.25, 1.5], [0.5, 1], [0.75, 0.5], [1, 0]]))
