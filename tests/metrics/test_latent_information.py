"""KL, mutual information and active units against the closed forms of a linear-Gaussian model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from building import rng
from gmbench.errors import MissingCapability
from gmbench.metrics import latent_information
from gmbench.metrics import mutual_information as products
from gmbench.metrics.diagonal_gaussian import DiagonalGaussian
from gmbench.metrics.latent_information import (
    MutualInformation,
    active_units,
    kl,
    variance_of_means,
)
from gmbench.metrics.mutual_information import mutual_information

NOISE = 0.5


def prior(num_latents: int) -> Independent:
    return Independent(Normal(torch.zeros(num_latents), torch.ones(num_latents)), 1)


def loadings(*norms: float) -> Tensor:
    """W (10, Z) with orthogonal columns of these norms, so that the posteriors below are diagonal."""
    return torch.linalg.qr(torch.randn(10, len(norms), generator=rng(99))).Q * torch.tensor(norms)


def information(W: Tensor) -> float:
    """I(x; z) = ½ log det(I + W'W / s²) of x = Wz + s·noise."""
    return float(torch.logdet(torch.eye(W.shape[1]) + W.T @ W / NOISE**2)) / 2


def posterior(W: Tensor, num: int, draw: Generator) -> Independent:
    """p(z | x) of `num` fresh points of the model: the aggregate is the prior."""
    x = torch.randn(num, W.shape[1], generator=draw) @ W.T + NOISE * torch.randn(num, len(W), generator=draw)
    precision = 1 + W.square().sum(0) / NOISE**2
    return Independent(Normal(x @ W / NOISE**2 / precision, precision.rsqrt().expand(num, -1)), 1)


def measure(W: Tensor, num: int, draw: Generator) -> MutualInformation:
    return mutual_information(posterior(W, num, draw), rng=draw)


WEAK, MIDDLE, STRONG = loadings(0.3, 0.2), loadings(1.0, 1.0, 0.5), loadings(*[5.0] * 6)  # 0.23, 1.96, 13.9 nats


@pytest.mark.parametrize("W", [WEAK, MIDDLE])
def test_kl_is_the_information_where_the_aggregate_is_the_prior(W: Tensor) -> None:
    draw, inside = rng(1), 0
    for _ in range(300):
        e = kl(posterior(W, 200, draw), prior(W.shape[1]))
        assert e.stderr is not None
        inside += abs(e.value - information(W)) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= 0.98
    assert (e.kind, e.n) == ("unbiased", 200)


def test_kl_matches_torch_with_any_gaussian_prior() -> None:
    q = Independent(Normal(torch.randn(50, 4, generator=rng(2)), 0.1 + torch.rand(50, 4, generator=rng(3))), 1)
    other = Independent(Normal(torch.randn(4, generator=rng(4)), torch.tensor([0.5, 1.0, 2.0, 3.0])), 1)
    terms = kl_divergence(q, other)
    found = kl(q, other)
    assert found.value == pytest.approx(float(terms.mean()), rel=1e-5)
    assert found.stderr == pytest.approx(float(terms.std()) / math.sqrt(50), rel=1e-5)
    assert kl(q, prior(4)).value != pytest.approx(found.value, rel=0.1)


@pytest.mark.parametrize(("W", "num"), [(WEAK, 100), (MIDDLE, 100), (MIDDLE, 400), (STRONG, 100)])
def test_bounds_lie_on_their_sides_of_the_closed_form(W: Tensor, num: int) -> None:
    draw = rng(5)
    found = [measure(W, num, draw) for _ in range(100)]
    low = torch.tensor([one.lower.value for one in found], dtype=torch.float64)
    high = torch.tensor([one.upper.value for one in found], dtype=torch.float64)
    assert float(low.mean()) < information(W) + 3 * float(low.std()) / 10
    assert float(high.mean()) > information(W) - 3 * float(high.std()) / 10
    assert float((high - low).min()) > 0
    assert found[0].log_n == math.log(num) > float(low.max()) - 1e-12
    if W is MIDDLE:  # the biases show, and shrink with the number of points
        gap = float((high - low).mean())
        assert {100: 0.15, 400: 0.05}[num] < gap < {100: 0.35, 400: 0.15}[num]
    assert (found[0].lower.kind, found[0].upper.kind) == ("lower_bound", "upper_bound")


def test_saturation_is_said() -> None:
    saturated, free = measure(STRONG, 100, rng(6)), measure(MIDDLE, 400, rng(6))
    assert saturated.saturated and not free.saturated
    assert "at most log N = 4.605; saturated" in saturated.lower.note and "saturated" not in free.lower.note
    assert saturated.lower.value > math.log(100) - 1 and saturated.upper.value > information(STRONG)


@pytest.mark.parametrize(("W", "num", "of_truth"), [(WEAK, 200, True), (MIDDLE, 200, False), (MIDDLE, 50, False)])
def test_standard_errors_cover(W: Tensor, num: int, of_truth: bool) -> None:
    """The truth where the bounds are tight, and elsewhere each bound's own expectation."""
    draw = rng(7)
    found = [measure(W, num, draw) for _ in range(300)]
    for name in ("lower", "upper"):
        estimates = [getattr(one, name) for one in found]
        values = torch.tensor([e.value for e in estimates])
        errors = torch.tensor([e.stderr for e in estimates])
        centre = information(W) if of_truth else float(values.mean())
        inside = ((values - centre).abs() < 1.96 * errors).double().mean()
        assert 0.91 <= float(inside) <= 0.985


def naive(q: Independent, seed: int) -> tuple[float, float]:
    """Both bounds by torch's mixtures, over the same latents."""
    mean, std = q.mean.double(), q.stddev.double()
    z = DiagonalGaussian(mean, std).draw(1, rng(seed))[0][0]
    num, low, high = len(z), 0.0, 0.0
    for i in range(num):
        others = torch.arange(num) != i
        own = Independent(Normal(mean[i], std[i]), 1).log_prob(z[i])
        for kept, name in ((torch.ones(num).bool(), "low"), (others, "high")):
            parts = Independent(Normal(mean[kept], std[kept]), 1)
            mixture = MixtureSameFamily(Categorical(torch.ones(int(kept.sum()), dtype=torch.float64)), parts)
            term = float(own - mixture.log_prob(z[i])) / num
            low, high = (low + term, high) if name == "low" else (low, high + term)
    return low, high


@pytest.mark.parametrize("form", [latent_information, products])
@pytest.mark.parametrize("block", [1, 70, 2**22])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_matches_mixtures_of_torch(monkeypatch: pytest.MonkeyPatch, form: Any, block: int, offset: float) -> None:
    monkeypatch.setattr(form, "_BLOCK_ELEMENTS", block)
    draw = rng(8)
    mean = 0.05 * torch.randn(30, 3, generator=draw) + offset
    q = Independent(Normal(mean.double(), (0.001 + 0.05 * torch.rand(30, 3, generator=draw)).double()), 1)
    found = form.mutual_information(q, rng=rng(9))
    low, high = naive(q, 9)
    assert found.lower.value == pytest.approx(low, abs=1e-7)
    assert found.upper.value == pytest.approx(high, abs=1e-7)


@pytest.mark.parametrize("form", [latent_information, products])
def test_standard_errors_are_the_infinitesimal_jackknife(form: Any) -> None:
    """The derivatives of both bounds by the points' weights, from autograd."""
    q = posterior(MIDDLE, 40, rng(12))
    mean, std = q.mean.double(), q.stddev.double()
    z = DiagonalGaussian(mean, std).draw(1, rng(13))[0][0]
    log_q = Independent(Normal(mean, std), 1).log_prob(z[:, None])  # (i, j)
    weights = torch.full((40,), 1 / 40, dtype=torch.float64, requires_grad=True)
    found = form.mutual_information(q, rng=rng(13))
    for bound, own in ((found.lower, 1.0), (found.upper, 0.0)):
        explains = log_q.exp() * (1 - (1 - own) * torch.eye(40))
        value = (weights * (log_q.diagonal() - (explains @ weights).log())).sum()
        (influence,) = torch.autograd.grad(value, weights)
        assert bound.stderr == pytest.approx(float(influence.std()) / math.sqrt(40), rel=1e-6)


def test_posteriors_that_ignore_the_points_carry_nothing() -> None:
    q = Independent(Normal(torch.ones(40, 3), torch.full((40, 3), 0.3)), 1)
    found = mutual_information(q, rng=rng())
    assert found.lower.value == pytest.approx(0, abs=1e-12) and found.upper.value == pytest.approx(0, abs=1e-12)
    assert active_units(q.mean).value == 0
    assert kl(q, Independent(Normal(torch.ones(3), torch.full((3,), 0.3)), 1)).value == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("form", [latent_information, products])
def test_points_that_are_told_apart_entirely_give_log_n(form: Any) -> None:
    q = Independent(Normal(torch.arange(50.0)[:, None], torch.full((50, 1), 1e-6)), 1)
    found = form.mutual_information(q, rng=rng())
    assert found.lower.value == pytest.approx(math.log(50), abs=1e-12) and found.saturated
    assert 1e10 < found.upper.value < math.inf
    pairs = Independent(Normal((torch.arange(50) // 2).float()[:, None], torch.full((50, 1), 1e-4)), 1)
    assert form.mutual_information(pairs, rng=rng()).lower.value == pytest.approx(math.log(25), abs=1e-3)


def test_active_units_are_the_latents_that_move() -> None:
    norms = (2.0, 1.0, 0.2, 0.03, 0.0)
    means = posterior(loadings(*norms), 4000, rng(10)).mean
    exact = torch.tensor([w**2 / (w**2 + NOISE**2) for w in norms], dtype=torch.float64)  # .94, .8, .14, .0036, 0
    torch.testing.assert_close(variance_of_means(means), exact, rtol=0.1, atol=1e-9)
    assert [active_units(means, threshold=t).value for t in (0.0, 0.001, 0.01, 0.5, 0.9, 1.0)] == [4, 4, 3, 2, 1, 0]
    found = active_units(means)
    assert (found.value, found.kind, found.n, found.stderr) == (3, "consistent", 4000, None)
    assert "of 5;" in found.note and ": 0 of the variances" in found.note
    assert ": 1 of the variances" in active_units(means, threshold=0.8).note
    assert active_units(means + 100).value == 3


def test_bad_input_is_refused() -> None:
    q = posterior(WEAK, 5, rng())
    with pytest.raises(MissingCapability, match=r"the posterior must be .* not Independent\(Bernoulli\)"):
        mutual_information(Independent(Bernoulli(torch.full((4, 2), 0.5)), 1), rng=rng())
    with pytest.raises(MissingCapability, match=r"the prior must be .* not Normal of event shape \(\)"):
        kl(q, Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="number of points must be at least 2"):
        mutual_information(posterior(WEAK, 1, rng()), rng=rng())
    with pytest.raises(ValueError, match="shape"):
        kl(prior(2), prior(2))
    with pytest.raises(ValueError, match="finite"):
        kl(Independent(Normal(q.mean * math.nan, q.stddev, validate_args=False), 1, validate_args=False), prior(2))
    with pytest.raises(ValueError, match="threshold"):
        active_units(q.mean, threshold=-1.0)
    with pytest.raises(ValueError, match="finite"):
        active_units(q.mean * math.inf)
