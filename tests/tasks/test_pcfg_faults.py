"""Faults planted in the oracle's own scores: excess nats fall below 0 by more than their noise, and are flagged."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from building import rng, task_of
from gmbench.consistency import beats_the_truth
from gmbench.estimate import Estimate
from gmbench.model import Likelihood
from gmbench.plugin import MetricCard
from gmbench.task import Context, Task
from gmbench.tasks.language.pcfg.grammars import language
from gmbench.tasks.language.pcfg.language import Language

EOS = 1


def make(grammar: str = "small") -> Any:
    """The task on its small track."""
    return task_of("pcfg", grammar=grammar)


def whole(score: Callable[[Language, Tensor], Tensor], likelihood: Likelihood | None = None) -> Any:
    """A model that scores sentences by the truth's scores, changed."""

    def made(truth: Language) -> Any:
        log_prob = lambda x, *, rng: score(truth, x)  # noqa: E731
        return SimpleNamespace(log_prob=log_prob, likelihood=likelihood or Likelihood())

    return made


def by_token(change: Callable[[Tensor, Tensor], Tensor]) -> Any:
    def made(truth: Language) -> Any:
        return SimpleNamespace(token_log_prob=lambda x: change(truth.token_log_prob(x), x))

    return made


def shrunk(truth: Language, x: Tensor, less: int, more: int) -> Tensor:
    """The nats of a sentence of n words over n + more tokens instead of n + less, as Optimus' perplexity has them."""
    num = (x > EOS).sum(1)
    return truth.log_prob(x) * (num + less) / (num + more)


def leak(log_p: Tensor, x: Tensor) -> Tensor:
    """The model has seen the fourth token."""
    log_p = log_p.clone()
    log_p[:, 3] = 0
    return log_p


def without_end(log_p: Tensor, x: Tensor) -> Tensor:
    return log_p.masked_fill(x == EOS, 0.0)


def score(task: Task, made: Any) -> Estimate:
    truth = task.truth  # type: ignore[attr-defined]
    found = task.measure("excess_nats", made(truth), Context(rng(), SimpleNamespace()))  # type: ignore[arg-type]
    assert found.headline in found.estimates and len(found.per_point) == len(task.test)  # type: ignore[attr-defined]
    return found.estimates[found.headline]


def is_flagged(found: Estimate) -> bool:
    metric: MetricCard = make().card.metrics["excess_nats"]
    return beats_the_truth(found, metric)


FAULTS = {
    "invalid bound": whole(lambda truth, x: truth.log_prob(x) + 0.3),
    "invalid bound that is called one": whole(
        lambda truth, x: truth.log_prob(x) + 0.3, Likelihood("", "melbo", "lower_bound")
    ),
    "n + 1 over n + 2": whole(lambda truth, x: shrunk(truth, x, 1, 2)),
    "denominator off by one": whole(lambda truth, x: shrunk(truth, x, 0, 1)),
    "leaked token": by_token(leak),
}


@pytest.mark.parametrize("grammar", ["small", "deep", "classes"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_makes_the_excess_negative_and_is_flagged(fault: str, grammar: str) -> None:
    found = score(make(grammar), FAULTS[fault])
    assert found.stderr is not None and found.value < -3 * found.stderr
    assert is_flagged(found)


def test_the_size_of_each_fault_is_what_it_should_be() -> None:
    task, truth = make(), make().truth
    words = float((task.test > EOS).sum(1).double().mean())
    assert score(task, FAULTS["invalid bound"]).value == pytest.approx(-0.3 / words)
    fourth = float(truth.token_log_prob(task.test)[:, 3].mean())
    assert score(task, FAULTS["leaked token"]).value == pytest.approx(fourth / words)


def test_a_dropped_end_shows_where_the_end_costs_something() -> None:
    truth = language("endings", 256)
    task = make("endings")
    x = task.test
    ends = truth.token_log_prob(x)[x == EOS]
    assert len(ends) == len(x) and float(ends.exp().mean()) == pytest.approx(0.85)
    sound, dropped = score(task, by_token(lambda log_p, x: log_p)), score(task, by_token(without_end))
    assert sound.value == 0 and not is_flagged(sound)
    assert dropped.stderr is not None and dropped.value < -3 * dropped.stderr and is_flagged(dropped)
    assert dropped.value == pytest.approx(float(ends.mean()) / float((x > EOS).sum(1).double().mean()))
    # where the full stop says it, the end is free, and to drop it is no fault
    assert score(make(), by_token(without_end)).value == 0


def test_a_dropped_end_hides_in_a_poor_model_and_pairing_finds_it_in_a_good_one() -> None:
    """Each token is the truth's, or with probability `noise` any token: sound, and the end has its price."""

    def noisy(noise: float, change: Callable[[Tensor, Tensor], Tensor]) -> Any:
        def smoothed(log_p: Tensor, x: Tensor) -> Tensor:
            mixed = ((1 - noise) * log_p.exp() + noise / 44).log()  # 43 words and the end
            return change(mixed.masked_fill(x == 0, 0.0), x)

        return by_token(smoothed)

    task = make("endings")
    for noise in (0.003, 0.3):
        sound = score(task, noisy(noise, lambda log_p, x: log_p))
        assert sound.stderr is not None and sound.value > 3 * sound.stderr and not is_flagged(sound)
    assert is_flagged(score(task, noisy(0.003, without_end)))
    assert not is_flagged(score(task, noisy(0.3, without_end)))


def test_honest_models_are_not_flagged() -> None:
    for grammar in ("small", "deep", "classes"):
        task = make(grammar)
        assert not is_flagged(score(task, by_token(lambda log_p, x: log_p)))
        # a language of other weights is sound, too: excess is its divergence
        other = make("deep" if grammar != "deep" else "small").truth
        found = score(task, whole(lambda truth, x, other=other: other.log_prob(x)))
        assert found.stderr is not None and found.value > 5 * found.stderr and not is_flagged(found)
