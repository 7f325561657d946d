"""The cipher channel: its probabilities in plain Python and by counting, and what the task's metrics say."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from building import rng, task_of
from gmbench.consistency import beats_the_truth
from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.measuring import Measured, measure
from gmbench.model import Likelihood
from gmbench.task import Task
from gmbench.tasks.language.seq2seq_cipher.cipher import FIRST, NUM_WORDS, CipherChannel
from gmbench.tasks.language.seq2seq_cipher.translations import exact_match

PAD, EOS = 0, 1


def channel(noise: float = 0.1) -> CipherChannel:
    return CipherChannel(noise, shortest=5, longest=15)


@cache
def make(noise: str = "0.1", track: str = "small") -> Task:
    made: Task = task_of("seq2seq_cipher", track, noise=noise)
    return made


def truth_of(task: Task) -> CipherChannel:
    truth: CipherChannel = task.data(0).truth
    return truth


def by_hand(row: list[int], noise: float) -> list[float]:
    """log p of the target's words, by the definition."""
    source = row[: row.index(EOS)]
    target = row[16:][: len(source)]
    found = []
    for t, word in enumerate(target):
        right = (7 * (source[-1 - t] - FIRST) + 3) % 26 + FIRST
        found.append(math.log(1 - noise) if word == right else math.log(noise / 25))
    return found


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_log_prob_is_the_definitions(noise: float) -> None:
    truth = channel(noise)
    x = truth.pairs(300, rng=rng())
    truth.space.validate(x)
    by_token, total = truth.token_log_prob(x), truth.log_prob(x)
    for row, each, one in zip(x.tolist(), by_token.tolist(), total.tolist(), strict=True):
        expected = by_hand(row, noise)
        assert each == pytest.approx(expected + [0.0] * (16 - len(expected)))
        assert one == pytest.approx(math.fsum(expected))


def test_every_position_is_a_distribution() -> None:
    truth = channel(0.3)
    x = truth.pairs(1, rng=rng(1))
    length, begin = int((x[0, :16] >= FIRST).sum()), 16
    for position in range(length + 1):
        rows = x.repeat(NUM_WORDS + 1, 1)
        rows[:, begin + position] = torch.arange(EOS, NUM_WORDS + FIRST)
        rows[:, begin + position + 1 :] = PAD
        if position < 15:
            rows[1:, begin + position + 1] = EOS
        else:
            rows = rows[:1]
        each = truth.token_log_prob(rows)
        assert float(each[:, position].exp().sum()) == pytest.approx(1)
        assert each[0, position] == (0 if position == length else -math.inf)  # the end is where the source's is
        if position < length - 1:
            assert bool((each[1:, position + 1] == -math.inf).all())


def test_entropies_are_sums_over_words() -> None:
    for noise in (0.0, 0.1, 0.3):
        truth = channel(noise)
        p = [1 - noise] + [noise / 25] * 25
        assert truth.entropy_of_word == pytest.approx(-math.fsum(q * math.log(q) for q in p if q))
        assert truth.entropy == pytest.approx(10 * truth.entropy_of_word)
    h_b = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert channel(0.1).entropy_of_word == pytest.approx(h_b + 0.1 * math.log(25))
    x = (truth := channel(0.1)).pairs(5000, rng=rng(2))
    log_p = truth.log_prob(x)
    assert abs(float(log_p.mean()) + truth.entropy) < 4 * float(log_p.std()) / 5000**0.5


def test_samples_are_the_channels() -> None:
    truth, num = channel(0.3), 4000
    sources = truth.sources(num, rng=rng(3))
    lengths = (sources >= FIRST).sum(1)
    assert stats.chisquare(lengths.bincount()[5:].numpy()).pvalue > 1e-4 and int(lengths.min()) == 5
    targets, plain = truth.sample(num, given=sources, rng=rng(4)), truth.plain(sources)
    assert torch.equal((targets >= FIRST).sum(1), lengths) and torch.equal(targets == EOS, plain == EOS)
    words = plain >= FIRST
    wrong = (targets != plain) & words
    assert abs(int(wrong.sum()) - 0.3 * int(words.sum())) < 4 * math.sqrt(0.21 * int(words.sum()))
    offsets = (targets - plain)[wrong] % 26
    assert stats.chisquare(offsets.bincount(minlength=26)[1:].numpy()).pvalue > 1e-4
    assert torch.equal(channel(0.0).sample(num, given=sources, rng=rng(5)), plain)
    assert (
        len(set(truth.plain(torch.tensor([[*range(2, 17), EOS], [*range(13, 28), EOS]]))[:, :15].flatten().tolist()))
        == 26
    )
    with pytest.raises(MissingCapability, match="needs the sources"):
        truth.sample(3, rng=rng())
    with pytest.raises(ValueError, match="3 targets of 4000 sources"):
        truth.sample(3, given=sources, rng=rng())


def test_attention_is_on_the_word_that_is_read() -> None:
    truth = channel()
    x = truth.pairs(50, rng=rng(6))
    attention = truth.attention(x)
    assert attention.shape == (50, 16, 16) and bool((attention.sum(2) == 1).all())
    assert not bool((attention.sum(1) * (x[:, :16] == PAD)).any())
    read = (attention @ x[:, :16, None].float())[..., 0].long()  # the source's word at each position of the target
    plain = truth.plain(x[:, :16])
    assert torch.equal(torch.where(read == EOS, EOS, (7 * (read - 2) + 3) % 26 + 2)[plain > PAD], plain[plain > PAD])


class Model:
    """The truth, or what is planted over it."""

    likelihood = Likelihood()

    def __init__(self, **planted: Any) -> None:
        for name, method in planted.items():
            setattr(self, name, method)


def headline(found: Measured) -> Estimate:
    return found.merged.estimates[found.merged.headline]


def test_the_truth_has_its_null() -> None:
    task = make()
    truth, found = truth_of(task), measure(task, truth_of(task), 0)
    values = {key: one.value for key, one in found.merged.estimates.items()}
    assert not found.unavailable and found.merged.headline == "excess_nats.exact"
    assert values["excess_nats.exact"] == 0 and len(found.merged.per_point) == 2000
    assert values["perplexity.floor"] == pytest.approx(1.90975, abs=1e-5)
    assert values["nll.floor"] == pytest.approx(truth.entropy)
    for key, expected in (("nll.exact", truth.entropy), ("perplexity.exact", math.exp(truth.entropy_of_word))):
        one = found.merged.estimates[key]
        assert one.stderr is not None and abs(one.value - expected) < 4 * one.stderr, key
    assert values["alignment.accuracy"] == values["alignment.mass"] == 1
    assert values["alignment.chance"] == pytest.approx(0.1, abs=0.003)
    for name in ("bleu4", "exact_match"):
        ours, its = found.merged.estimates[f"{name}.sampled"], found.merged.estimates[f"{name}.sampled.truth"]
        assert ours.stderr is not None and its.stderr is not None
        assert ours != its and abs(ours.value - its.value) < 4 * math.hypot(ours.stderr, its.stderr)
    # nine words of ten are kept, in every one of the targets' words
    kept = sum(0.9**n for n in range(5, 16)) / 11
    one = found.merged.estimates["exact_match.sampled.truth"]
    assert one.stderr is not None and abs(one.value - kept) < 4 * one.stderr


def test_a_model_that_knows_only_the_length_is_above_by_the_words() -> None:
    task = make(track="smoke")

    def uniform(x: Tensor) -> Tensor:
        return torch.where(x[:, 16:] >= FIRST, -math.log(26), 0.0)

    def even(x: Tensor) -> Tensor:  # even attention over the source's words: argmax takes the first
        words = (x[:, :16] >= FIRST).float()
        return (words / words.sum(1, keepdim=True))[:, None].expand(-1, 16, -1)

    def no_noise(num: int, *, given: Tensor, rng: Generator) -> Tensor:
        return truth_of(task).plain(given)

    model = Model(token_log_prob=uniform, attention=even, sample=no_noise)
    found = measure(task, model, 0).merged.estimates
    one, expected = found["excess_nats.exact"], math.log(26) - truth_of(task).entropy_of_word
    assert one.stderr is not None and abs(one.value - expected) < 4 * one.stderr
    assert found["perplexity.exact"].value == pytest.approx(26)
    chance = found["alignment.chance"].value
    assert found["alignment.mass"].value == pytest.approx(chance)
    assert found["alignment.accuracy"].value == pytest.approx(chance)  # right once a target, at its last word
    assert found["bleu4.sampled"].value == 1 and found["exact_match.sampled"].value == 1
    assert found["bleu4.sampled.truth"].value < 0.9


def test_attention_that_reads_forwards_is_seldom_right() -> None:
    task = make(track="smoke")

    def forwards(x: Tensor) -> Tensor:
        return torch.eye(16).expand(len(x), 16, 16)

    found = measure(task, Model(attention=forwards), 0)
    accuracy = found.merged.estimates["alignment.accuracy"]
    odd = sum(1 for n in range(5, 16) if n % 2) / 11  # the word in the middle of an odd number
    assert accuracy.stderr is not None and abs(accuracy.value - odd / 10) < 4 * accuracy.stderr
    assert set(found.unavailable) == {"excess_nats", "nll", "bleu"}


def faults(truth: CipherChannel) -> dict[str, Model]:
    def scaled(x: Tensor) -> Tensor:
        words = (x[:, 16:] >= FIRST).sum(1, keepdim=True)
        return truth.token_log_prob(x) * (words + 1) / (words + 2)

    def leaked(x: Tensor) -> Tensor:
        """One word in ten is seen while it is predicted: a mask that is off by one, of one head of several."""
        return (0.9 * truth.token_log_prob(x).exp() + 0.1).log()

    def bound(x: Tensor, *, rng: Generator) -> Tensor:
        return truth.log_prob(x) - 0.1 + 0.5

    planted = Model(log_prob=bound)
    planted.likelihood = Likelihood("", "elbo", "lower_bound")
    dropped = Model(token_log_prob=lambda x: torch.cat([0 * x[:, 16:17], truth.token_log_prob(x)[:, 1:]], 1))
    return {
        "the denominator counts BOS": Model(token_log_prob=scaled),
        "a word is seen": Model(token_log_prob=leaked),
        "a bound with a constant left out": planted,
        "the first word is not scored": dropped,
    }


@pytest.mark.parametrize("noise", ["0.1", "0.3"])
def test_scores_that_cheat_are_below_the_truth_and_flagged(noise: str) -> None:
    task = make(noise)
    for name, model in faults(truth_of(task)).items():
        context: Any = type("Context", (), {"rng": rng()})
        found = task.measure("excess_nats", model, context)
        one = found.estimates[found.headline]
        assert one.stderr is not None and one.value < -3 * one.stderr, name
        assert beats_the_truth(one, make().card.metrics["excess_nats"]), name


def test_a_score_that_is_a_little_worse_is_above_by_its_divergence() -> None:
    """The paired excess is the divergence of the channels: here of one that believes in another noise."""
    task = make()
    found = task.measure("excess_nats", channel(0.15), type("Context", (), {"rng": rng()}))  # type: ignore[arg-type]
    one = found.estimates["excess_nats.exact"]
    divergence = 0.9 * math.log(0.9 / 0.85) + 0.1 * math.log(0.1 / 0.15)
    assert one.stderr is not None and abs(one.value - divergence) < 4 * one.stderr < divergence
    assert float(found.per_point.mean()) == pytest.approx(one.value, rel=1e-4)


def test_translations_that_are_no_targets_are_refused() -> None:
    def half(num: int, *, given: Tensor, rng: Generator) -> Tensor:
        return given[:, :8]

    with pytest.raises(ValueError, match="the model's translations: shape"):
        measure(make(track="smoke"), Model(sample=half), 0)


def test_data_follow_seed_and_version() -> None:
    task = make(track="smoke")
    data, other = task.data(0), task.data(1)
    assert data.train is not None and other.train is not None
    assert len(data.train) == 10_000 and len(data.validation) == 1000
    assert torch.equal(data.train, task.data(0).train) and not torch.equal(data.train, other.train)
    rows = {tuple(row) for row in data.train.tolist()}
    assert all(tuple(row) in rows for row in data.draw(50, rng()).tolist())
    small, smoke = (make(track=track).test for track in ("small", "smoke"))  # type: ignore[attr-defined]
    assert len(smoke) == 200 and torch.equal(small[:200], smoke)


def test_an_exact_match_is_right_in_every_word() -> None:
    references = [["a", "b"], ["c"], [], ["d", "e"]]
    match = exact_match([["a", "b"], ["b"], [], ["d"]], references)
    assert match.value == 0.5 and match.stderr == pytest.approx(math.sqrt(1 / 3) / 2)
