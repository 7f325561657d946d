"""Bounds on the log-likelihood of two latent-variable models whose log p(x) is known, one of them by quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.nn.functional import logsigmoid

from building import rng
from gmbench.errors import MissingCapability
from gmbench.metrics.importance_bound import evidence_bound, importance_bound

DIM = 12


def gaussian(mean: Tensor, std: Tensor) -> Independent:
    return Independent(Normal(mean, std.expand_as(mean)), 1)


@dataclass(frozen=True)
class Linear:
    """x = Wz + s·noise with orthogonal columns in W, so that p(z | x) is a diagonal Gaussian.

    The posterior it offers is `shift` of its own standard deviations off and `stretch` times too wide.
    """

    W: Tensor
    s: float
    shift: float = 0.0
    stretch: float = 1.0

    def prior(self) -> Distribution:
        return gaussian(self.W.new_zeros(self.W.shape[1]), self.W.new_ones(()))

    def true_posterior(self, x: Tensor) -> Independent:
        precision = 1 + self.W.square().sum(0) / self.s**2
        return gaussian(x @ self.W / self.s**2 / precision, precision.rsqrt())

    def posterior(self, x: Tensor) -> Distribution:
        p = self.true_posterior(x)
        return gaussian(p.mean + self.shift * p.stddev, self.stretch * p.stddev)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return Normal(z @ self.W.T, self.s).log_prob(x).sum(-1)

    def exact(self, x: Tensor) -> Tensor:
        covariance = self.W @ self.W.T + self.s**2 * torch.eye(DIM, dtype=self.W.dtype)
        return MultivariateNormal(self.W.new_zeros(DIM), covariance).log_prob(x)

    def draw(self, num: int, draw: Generator) -> Tensor:
        z = torch.randn(num, self.W.shape[1], generator=draw, dtype=self.W.dtype)
        return z @ self.W.T + self.s * torch.randn(num, DIM, generator=draw, dtype=self.W.dtype)


def linear(shift: float = 0.0, stretch: float = 1.0) -> Linear:
    directions = torch.linalg.qr(torch.randn(DIM, 3, generator=rng(1), dtype=torch.float64)).Q
    return Linear(directions * torch.tensor([3.0, 1.0, 0.1]), 0.7, shift, stretch)


SLOPE, BIAS = 2 * torch.randn(DIM, generator=rng(2)), torch.randn(DIM, generator=rng(3))


@dataclass(frozen=True)
class Logistic:
    """x_i ~ Bernoulli(sigmoid(SLOPE_i z + BIAS_i)) with one latent; its posterior is crude, and `broken` far off."""

    prior_: Distribution
    broken: bool = False

    def posterior(self, x: Tensor) -> Distribution:
        mean = ((2 * x - 1) @ SLOPE / SLOPE.square().sum()).clamp(-1, 1)
        mean = -mean - 1 if self.broken else mean
        return gaussian(mean[:, None], torch.tensor(0.8))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return logsigmoid((2 * x - 1) * (z * SLOPE + BIAS)).sum(-1)

    def exact(self, x: Tensor) -> Tensor:
        z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None, None]  # (4001, 1, 1)
        joint = self.log_likelihood(x.double(), z) + self.prior_.log_prob(z)
        return torch.logsumexp(joint, 0) + math.log(24 / 4000)


STANDARD = gaussian(torch.zeros(1), torch.ones(1))
TWO_HUMPS = MixtureSameFamily(
    Categorical(torch.tensor([0.3, 0.7])), gaussian(torch.tensor([[-2.0], [1.0]]), torch.tensor(0.4))
)


def bound(of: Linear, x: Tensor, K: int, seed: int = 0, **options: int) -> Tensor:
    return importance_bound(of.prior(), of.posterior, of.log_likelihood, x, num_importance=K, rng=rng(seed), **options)


def logistic_bound(of: Logistic, x: Tensor, K: int, seed: int = 0) -> Tensor:
    return importance_bound(of.prior_, of.posterior, of.log_likelihood, x, num_importance=K, rng=rng(seed))


@pytest.mark.parametrize(("K", "max_rows"), [(1, 4), (7, 4), (10, 1), (10, 64), (5000, 2048)])
def test_the_true_posterior_gives_log_p_whatever_the_number_and_the_blocks(K: int, max_rows: int) -> None:
    of = linear()
    x = of.draw(5, rng())
    found = bound(of, x, K, max_rows=max_rows)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, of.exact(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 1.4), (-0.4, 0.8)])
def test_one_draw_misses_log_p_by_the_divergence_of_the_posteriors(shift: float, stretch: float) -> None:
    of = linear(shift, stretch)
    x = of.draw(4, rng())
    q, p = of.posterior(x), of.true_posterior(x)
    expected = of.exact(x) - kl_divergence(q, p)
    found = bound(of, x.repeat(20_000, 1), 1).view(20_000, 4)
    stderr = found.std(0) / math.sqrt(20_000)
    assert bool(((found.mean(0) - expected).abs() < 4 * stderr).all()) and float(stderr.max()) < 0.02

    parts = evidence_bound(of.prior(), of.posterior, of.log_likelihood, x, num_draws=20_000, rng=rng(), max_rows=1000)
    reconstruction = (  # a linear decoder's E_q log p(x | z): its value at the mean, less what the spread costs
        of.log_likelihood(x, q.mean[None])[0] - (q.variance @ of.W.square().sum(0)) / (2 * of.s**2)
    )
    torch.testing.assert_close(parts.kl, kl_divergence(q, of.prior()), atol=1e-12, rtol=0)
    torch.testing.assert_close(parts.reconstruction, reconstruction, atol=0.1, rtol=0)
    torch.testing.assert_close(parts.elbo, parts.reconstruction - parts.kl)
    torch.testing.assert_close(parts.elbo, expected, atol=0.1, rtol=0)


def test_the_gap_falls_as_the_variance_of_the_weights_over_2k() -> None:
    of = linear(shift=0.5)
    x = of.draw(1, rng()).repeat(4000, 1)
    variance = math.exp(3 * 0.25) - 1  # of p(z | x) / q(z | x) between Gaussians one half apart in 3 dimensions
    for K in (50, 100):
        gap = of.exact(x[:1]) - bound(of, x, K)
        stderr = float(gap.std()) / math.sqrt(4000)
        assert float(gap.mean()) == pytest.approx(variance / (2 * K), abs=4 * stderr + 0.1 * variance / (2 * K))
        assert stderr < 0.3 * variance / (2 * K)


@pytest.mark.parametrize("prior", [STANDARD, TWO_HUMPS], ids=["standard", "two humps"])
def test_bound_rises_to_log_p_and_a_broken_posterior_stays_below(prior: Distribution) -> None:
    x = torch.zeros(40, DIM).bernoulli_(0.5, generator=rng(4))
    gap, stderr = {}, {}
    for broken in (False, True):
        of = Logistic(prior, broken)
        truth = of.exact(x)
        for K in (1, 5, 50, 3000):
            slack = torch.stack([truth - logistic_bound(of, x, K, seed) for seed in range(300 if K < 100 else 2)])
            gap[broken, K] = float(slack.mean())
            stderr[broken, K] = float(slack.mean(1).std()) / math.sqrt(len(slack))
    for broken, few, many in ((False, 1, 5), (False, 5, 50), (True, 1, 5), (True, 5, 50), (True, 50, 3000)):
        fall = gap[broken, few] - gap[broken, many]
        assert fall > 3 * math.hypot(stderr[broken, few], stderr[broken, many])
    assert all(gap[False, K] > 3 * stderr[False, K] for K in (1, 5))
    assert all(gap[True, K] > 3 * stderr[True, K] for K in (1, 5, 50))
    assert gap[True, 1] > gap[False, 1] + 1 and gap[True, 50] > gap[False, 50] + 0.01
    assert abs(gap[False, 3000]) < 0.01


def test_blocks_of_draws_change_nothing_on_average() -> None:
    of = linear(shift=0.5, stretch=1.3)
    x = of.draw(1, rng()).repeat(400, 1)
    whole, blocks = bound(of, x, 30, seed=1), bound(of, x, 30, seed=2, max_rows=7)
    assert abs(float((whole - blocks).mean())) < 4 * float((whole - blocks).std()) / math.sqrt(400)
    assert float(whole.std()) == pytest.approx(float(blocks.std()), rel=0.15)


def test_no_more_latents_are_decoded_at_once_than_allowed() -> None:
    of, rows, points = linear(), [], []
    x = of.draw(100, rng())

    def posterior(part: Tensor) -> Distribution:
        points.append(len(part))
        return of.posterior(part)

    def log_likelihood(part: Tensor, z: Tensor) -> Tensor:
        rows.append(z.shape[0] * z.shape[1])
        return of.log_likelihood(part, z)

    for K in (1, 30, 900):
        importance_bound(of.prior(), posterior, log_likelihood, x, num_importance=K, rng=rng(), max_rows=250)
        assert max(rows) <= 250 and sum(rows) == 100 * K and sum(points) == 100
        rows.clear()
        points.clear()
    evidence_bound(of.prior(), posterior, log_likelihood, x, num_draws=900, rng=rng(), max_rows=250)
    assert max(rows) <= 250 and sum(rows) == 100 * 900


def test_draws_come_from_the_given_generator_alone() -> None:
    of = linear(shift=0.5)
    x, state = of.draw(3, rng()), torch.get_rng_state()
    assert torch.equal(bound(of, x, 5), bound(of, x, 5)) and not torch.equal(bound(of, x, 5), bound(of, x, 5, seed=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_zero() -> None:
    of, x = linear(), linear().draw(2000, rng())

    def half(part: Tensor, z: Tensor) -> Tensor:  # p(x | z) is 0 on one side of the posterior's mean
        return torch.where(z[..., 0] > of.posterior(part).mean[:, 0], of.log_likelihood(part, z), -math.inf)

    found = importance_bound(of.prior(), of.posterior, half, x[:20], num_importance=2000, rng=rng())
    torch.testing.assert_close(found, of.exact(x[:20]) - math.log(2), atol=0.12, rtol=0)
    single = importance_bound(of.prior(), of.posterior, half, x, num_importance=1, rng=rng())
    assert float((single == -math.inf).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_bad_input_is_refused() -> None:
    of = linear()
    x = of.draw(3, rng())
    with pytest.raises(ValueError, match="num_importance must be at least 1"):
        bound(of, x, 0)
    with pytest.raises(ValueError, match="max_rows"):
        bound(of, x, 1, max_rows=0)
    with pytest.raises(ValueError, match="number of points"):
        bound(of, x[:0], 1)
    flat = Independent(Bernoulli(torch.full((3, 2), 0.5)), 1)
    with pytest.raises(MissingCapability, match=r"posterior .* not Independent\(Bernoulli\) of event shape \(2,\)"):
        importance_bound(of.prior(), lambda part: flat, of.log_likelihood, x, num_importance=1, rng=rng())
    with pytest.raises(MissingCapability, match=r"the prior must be .* not MixtureSameFamily"):
        evidence_bound(TWO_HUMPS, of.posterior, of.log_likelihood, x, num_draws=1, rng=rng())
    with pytest.raises(ValueError, match=r"must have shape \(5, 3\), not \(3, 5\)"):
        importance_bound(of.prior(), of.posterior, lambda part, z: z[..., 0].T, x, num_importance=5, rng=rng())
    with pytest.raises(ValueError, match="NaN"):
        importance_bound(of.prior(), of.posterior, lambda part, z: z[..., 0] * math.nan, x, num_importance=5, rng=rng())
