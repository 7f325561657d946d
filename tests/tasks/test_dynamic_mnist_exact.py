"""The two distributions over 4x4 images: tables against formulas, and samples against tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Generator, Tensor

from building import rng
from gmbench.model import HasHarmonium, HasLogProb, Samples
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.tasks.images.dynamic_mnist.exact import ExactImages, NoisyBars, SmallHarmonium, bars_and_stripes

BARS, MACHINE = NoisyBars(), SmallHarmonium()
BOTH = pytest.mark.parametrize("truth", [BARS, MACHINE], ids=["bars", "machine"])
STATES = all_states(16)


def p_value(x: Tensor, truth: ExactImages) -> float:
    """Of Pearson's test that images x have this distribution; images expected fewer than 5 times are put together."""
    expected = truth.log_prob(STATES).exp() * len(x)
    counts = state_index(x).bincount(minlength=len(STATES)).double()
    order = expected.argsort(descending=True)
    # runs of images that together are expected 5 times at least
    group = (expected[order].cumsum(0) / 5).long().clamp(max=int(len(x) / 5) - 2)
    names, group = group.unique(return_inverse=True)
    zeros = torch.zeros(len(names), dtype=torch.float64)
    observed, wanted = zeros.index_add(0, group, counts[order]), zeros.index_add(0, group, expected[order])
    return float(chisquare(observed.numpy(), wanted.numpy() * len(x) / float(wanted.sum())).pvalue)


def noisy_patterns(num: int, draw: Generator) -> Tensor:
    """Bars and stripes as the story goes: a pattern, then its flips."""
    patterns = bars_and_stripes()[torch.randint(30, (num,), generator=draw)]
    flips = torch.rand(num, 16, generator=draw) < 0.02
    return torch.where(flips, 1 - patterns, patterns)


def two_layers(num: int, draw: Generator) -> Tensor:
    """The machine's images from its hidden bits, whose probabilities are enumerated."""
    W, b, c = MACHINE.harmonium()
    h = all_states(8)
    weights = h @ c + torch.nn.functional.softplus(b + h @ W.T).sum(1)
    drawn = h[torch.multinomial(weights.softmax(0), num, replacement=True, generator=draw)]
    return (torch.rand(num, 16, dtype=torch.float64, generator=draw) < torch.sigmoid(b + drawn @ W.T)).double()


def test_there_are_thirty_patterns() -> None:
    images = np.array(list(itertools.product([0, 1], repeat=16))).reshape(-1, 4, 4)
    regular = (images == images[:, :, :1]).all((1, 2)) | (images == images[:, :1]).all((1, 2))
    found = {tuple(image) for image in images[regular].reshape(-1, 16)}
    assert found == {tuple(row) for row in bars_and_stripes().int().tolist()}
    assert len(bars_and_stripes()) == 30


@BOTH
def test_sums_to_one(truth: ExactImages) -> None:
    assert float(truth.log_prob(STATES).exp().sum()) == pytest.approx(1, abs=1e-12)
    assert truth.log_prob(STATES).dtype == torch.float64


def test_noisy_bars_by_the_formula() -> None:
    x = torch.randint(2, (50, 16), generator=rng()).float()
    for image, log_p in zip(x, BARS.log_prob(x), strict=True):
        total = 0.0
        for pattern in bars_and_stripes():
            flips = int((image != pattern).sum())
            total += 0.02**flips * 0.98 ** (16 - flips) / 30
        assert float(log_p) == pytest.approx(math.log(total), abs=1e-10)


def test_machine_by_the_joint_of_both_layers() -> None:
    W, b, c = MACHINE.harmonium()
    h = all_states(8)
    slopes, constants = W @ h.T + b[:, None], h @ c  # of every hidden state: (16, 256), (256,)
    marginal = torch.cat([(block @ slopes + constants).logsumexp(1) for block in STATES.split(4096)])
    torch.testing.assert_close(MACHINE.log_prob(STATES), marginal - marginal.logsumexp(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("truth", "other", "story"), [(BARS, MACHINE, noisy_patterns), (MACHINE, BARS, two_layers)], ids=["bars", "machine"]
)
def test_samples_have_the_probabilities_of_the_table(truth: ExactImages, other: ExactImages, story) -> None:  # type: ignore[no-untyped-def]
    x = truth.sample(40_000, rng=rng(1))
    assert x.dtype == torch.float32 and x.shape == (40_000, 16)
    assert p_value(x, truth) > 0.001
    assert p_value(story(40_000, rng(2)), truth) > 0.001
    assert p_value(other.sample(40_000, rng=rng(3)), truth) < 1e-10
    bent = x.clone()
    bent[:8000, 0] = 1  # one pixel of 20 images in 100
    assert p_value(bent, truth) < 1e-6


@BOTH
def test_entropy(truth: ExactImages) -> None:
    log_p = truth.log_prob(STATES)
    assert truth.entropy == pytest.approx(-float((log_p.exp() * log_p).sum()), abs=1e-10)
    drawn = -truth.log_prob(truth.sample(20_000, rng=rng(4)))
    assert float(drawn.mean()) == pytest.approx(truth.entropy, abs=4 * float(drawn.std()) / 20_000**0.5)


def test_the_definitions_do_not_move() -> None:
    assert BARS.entropy == pytest.approx(4.961617133408, abs=1e-11)
    assert MACHINE.entropy == pytest.approx(6.898775803508, abs=1e-11)
    # a noisy pattern tells a little less than the pattern and the flips do apart
    apart = math.log(30) + 16 * (-0.02 * math.log(0.02) - 0.98 * math.log(0.98))
    assert BARS.entropy < apart < BARS.entropy + 0.1


def test_the_machine_is_far_from_independent_pixels_and_has_modes_apart() -> None:
    p = MACHINE.log_prob(STATES).exp()
    means = p @ STATES
    independent = -float((means * means.log() + (1 - means) * (1 - means).log()).sum())
    assert independent > MACHINE.entropy + 3
    is_mode = torch.ones(len(p), dtype=torch.bool)
    for bit in range(16):
        is_mode &= p >= p[torch.arange(len(p)) ^ (1 << bit)]
    assert int(is_mode.sum()) == 10
    modes = STATES[is_mode]
    distance = (modes[:, None] != modes).sum(2) + 16 * torch.eye(len(modes), dtype=torch.int64)
    assert int(distance.min()) >= 2


@BOTH
def test_contract(truth: ExactImages) -> None:
    assert isinstance(truth, Samples) and isinstance(truth, HasLogProb)
    assert truth.likelihood.kind == "exact" and truth.likelihood.key == "exact"
    assert torch.equal(truth.sample(50, given=None, rng=rng(5)), truth.sample(50, rng=rng(5)))
    assert not torch.equal(truth.sample(50, rng=rng(5)), truth.sample(50, rng=rng(6)))
    x = truth.sample(50, rng=rng(5))
    assert torch.equal(truth.log_prob(x, rng=rng()), truth.log_prob(x.double()))
    for wrong, message in ((x[:, :15], "shape"), (2 * x - 1, "0 and 1"), (x[0], "shape")):
        with pytest.raises(ValueError, match=message):
            truth.log_prob(wrong)


def test_only_the_machine_is_a_harmonium() -> None:
    assert isinstance(MACHINE, HasHarmonium) and not isinstance(BARS, HasHarmonium)
    assert [tuple(part.shape) for part in MACHINE.harmonium()] == [(16, 8), (16,), (8,)]
    assert torch.equal(MACHINE.harmonium().weight, SmallHarmonium().harmonium().weight)
