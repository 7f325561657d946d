"""Every estimator of the task's log-likelihood against the exact one on 4x4 images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import logsigmoid, softplus

from building import rng
from gmbench.errors import MissingCapability
from gmbench.metrics.harmonium import exact_log_partition, log_density
from gmbench.model import Harmonium, Likelihood
from gmbench.samplers.transition_matrix import all_states
from gmbench.tasks.images.dynamic_mnist import nll
from gmbench.tasks.images.dynamic_mnist.nll import Scored, log_likelihoods, score

DIM = 16
BUDGET = {
    "num_importance": 2000,
    "ais_steps": 400,
    "ais_chains": 200,
    "raise_steps": 300,
    "raise_chains": 2,
    "num_ascents": 200,
}


def machine(dim: int = DIM, hidden: int = 10, scale: float = 0.7, seed: int = 0) -> Harmonium:
    draw = rng(seed)
    W = scale * torch.randn(dim, hidden, generator=draw)
    return Harmonium(W, 0.3 * torch.randn(dim, generator=draw), 0.3 * torch.randn(hidden, generator=draw))


def exact_log_p(of: Harmonium, x: Tensor) -> Tensor:
    return log_density(of, x.double()) - exact_log_partition(of)


def points_of(of: Harmonium, num: int) -> Tensor:
    states = all_states(len(of.visible_bias))
    return states[torch.multinomial(exact_log_p(of, states).exp(), num, replacement=True, generator=rng(7))].float()


def found(model: Any, x: Tensor, **changes: Any) -> dict[str, Scored]:
    listed = list(log_likelihoods(model, x, x, BUDGET | changes, rng(1)))
    assert len({one.key for one in listed}) == len(listed)
    return {one.key: one for one in listed}


def test_a_small_machine_is_exact() -> None:
    of = machine()
    x = points_of(of, 50)
    one = found(SimpleNamespace(harmonium=lambda: of), x)
    assert list(one) == ["exact"] and one["exact"].kind == "exact"
    torch.testing.assert_close(one["exact"].log_p, exact_log_p(of, x))


def test_a_large_machine_is_bracketed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nll, "MAX_BITS", 5)
    of = machine()
    x = points_of(of, 200)
    truth = float(exact_log_p(of, x).mean())
    low, high = found(SimpleNamespace(harmonium=lambda: of), x).values()
    assert (low.key, high.key) == ("annealed.raise300x2", "ais400x200")
    assert (low.kind, high.kind) == ("lower_bound", "upper_bound")
    assert truth - 0.5 < float(low.log_p.mean()) < truth + 0.05
    assert abs(float(high.log_p.mean()) - truth) < 4 * high.log_z_stderr


class Deep:
    """A machine on six bits below which every bit of an image copies one of them, flipped with probability .1."""

    def __init__(self) -> None:
        self.top = machine(dim=6, hidden=4, scale=1.0, seed=3)
        self.parents = torch.arange(DIM) % 6
        self.log_same, self.log_flip = torch.tensor(0.9).log(), torch.tensor(0.1).log()

    def harmonium(self) -> Harmonium:
        return self.top

    def log_p_of(self, x: Tensor, v: Tensor) -> Tensor:
        same = x == v[..., self.parents]
        return torch.where(same, self.log_same, self.log_flip).sum(-1).double()

    def ascend(self, x: Tensor, *, rng: Generator) -> tuple[Tensor, Tensor]:
        """Each bit of v is the majority of its copies with probability .85: a crude posterior."""
        copies = torch.stack([x[:, self.parents == j].mean(1) for j in range(6)], 1)
        p = 0.15 + 0.7 * (copies > 0.5).float()
        v = (torch.rand(p.shape, generator=rng) < p).float()
        return v, self.log_p_of(x, v) - (v * p.log() + (1 - v) * (1 - p).log()).sum(1).double()

    def exact(self, x: Tensor) -> Tensor:
        v = all_states(6)
        joint = exact_log_p(self.top, v) + torch.stack([self.log_p_of(x, row) for row in v.float()], 1)
        return torch.logsumexp(joint, 1)


@pytest.mark.parametrize("max_bits", [5, 2])
def test_a_deep_machine_is_bounded(monkeypatch: pytest.MonkeyPatch, max_bits: int) -> None:
    monkeypatch.setattr(nll, "MAX_BITS", max_bits)
    model = Deep()
    x = model.top.weight.new_zeros(150, DIM).bernoulli_(0.5, generator=rng(2))
    truth, estimates = model.exact(x), found(model, x)
    if max_bits == 5:
        (one,) = estimates.values()
        assert one.key == "iw200.exact_z" and one.kind == "lower_bound"
        slack = truth - one.log_p
        assert 0 < float(slack.mean()) < 0.2
        single = found(model, x, num_ascents=1)["iw1.exact_z"]
        assert float((truth - single.log_p).mean()) > float(slack.mean()) + 0.3
    else:
        low, other = estimates.values()
        assert (low.key, low.kind) == ("annealed.raise300x2", "lower_bound")
        assert (other.key, other.kind) == ("iw200.ais400x200", "upper_bound")
        assert 0 < float((truth - low.log_p).mean()) < 3  # two ascents a point
        assert float((truth - other.log_p).mean()) == pytest.approx(0.05, abs=0.15)


@pytest.mark.parametrize("suffix", ["", ".exact_flips"])
def test_an_energy_is_enumerated_or_bracketed(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    of = machine(scale=0.5)
    x = points_of(of, 100)

    def energy(points: Tensor) -> Tensor:
        if suffix:
            points = points.detach()  # as an energy that another framework computes
        free = points @ of.visible_bias + softplus(of.hidden_bias + points @ of.weight).sum(1)
        return 3.0 - free  # a constant changes nothing

    model = SimpleNamespace(energy=energy)
    truth = exact_log_p(of, x)
    (one,) = found(model, x).values()
    assert (one.key, one.kind) == ("ebm.exact", "exact")
    torch.testing.assert_close(one.log_p, truth, atol=1e-4, rtol=0)
    monkeypatch.setattr(nll, "MAX_ENUMERATED", 8)
    low, high = found(model, x).values()
    assert (low.key, low.kind) == (f"annealed.raise300x2{suffix}", "lower_bound")
    assert (high.key, high.kind) == (f"ebm.ais400x200{suffix}", "upper_bound")
    assert float(truth.mean()) - 1.5 < float(low.log_p.mean()) < float(truth.mean()) + 0.05
    assert abs(float((high.log_p - truth).mean())) < 4 * high.log_z_stderr
    model.log_prob, model.likelihood = lambda x, rng: exact_log_p(of, x), Likelihood("gfn")
    # what ranks is there: no second conservative number
    assert list(found(model, x)) == ["gfn.exact", f"ebm.ais400x200{suffix}"]


class LinearDecoder:
    """x_i ~ Bernoulli(sigmoid(w_i z)) with one standard normal latent, and a posterior that is right in scale only."""

    def __init__(self) -> None:
        self.w = 2 * torch.randn(DIM, generator=rng(4))

    def prior(self) -> Independent:
        return Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

    def posterior(self, x: Tensor) -> Independent:
        mean = ((2 * x - 1) @ self.w / self.w.square().sum()).clamp(-1.5, 1.5)
        return Independent(Normal(mean[:, None], torch.full((len(x), 1), 0.6)), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return logsigmoid((2 * x - 1) * z * self.w).sum(-1)

    def exact(self, x: Tensor) -> Tensor:
        z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
        log_p = logsigmoid((2 * x.double() - 1)[None] * (z[:, None] * self.w.double())[:, None]).sum(-1)
        log_prior = Normal(0.0, 1.0).log_prob(z)
        return torch.logsumexp(log_p + log_prior[:, None], 0) + torch.log(z[1] - z[0])


def test_latents_give_the_importance_weighted_bound() -> None:
    model = LinearDecoder()
    x = torch.zeros(60, DIM).bernoulli_(0.5, generator=rng(5))
    truth = model.exact(x)
    many, few = found(model, x), found(model, x, num_importance=1)["iw1"]
    assert list(many) == ["iw2000", "elbo"] and {one.kind for one in many.values()} == {"lower_bound"}
    torch.testing.assert_close(many["iw2000"].log_p, truth, atol=0.15, rtol=0)
    assert float((truth - few.log_p).mean()) > 0.1
    gap = few.log_p - many["elbo"].log_p  # one draw against fifty of the same quantity
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 60**0.5


def test_a_model_without_any_likelihood_is_told() -> None:
    with pytest.raises(MissingCapability, match="no likelihood"):
        found(SimpleNamespace(sample=lambda num, rng: None), torch.zeros(2, DIM))
    with pytest.raises(MissingCapability, match="neither"):
        score(SimpleNamespace(), torch.zeros(2, DIM), 5, rng())


def test_scores_are_larger_where_the_model_finds_points_likelier() -> None:
    of = machine()
    x = points_of(of, 40)
    truth = exact_log_p(of, x).float()
    by_energy = score(SimpleNamespace(energy=lambda points: -log_density(of, points)), x, 5, rng())
    torch.testing.assert_close(by_energy - by_energy[0], truth - truth[0], atol=1e-4, rtol=0)
    own = SimpleNamespace(log_prob=lambda x, rng: exact_log_p(of, x), likelihood=Likelihood())
    torch.testing.assert_close(score(own, x, 5, rng()).float(), truth)
    latent = LinearDecoder()
    close = score(latent, x, 2000, rng()).double() - latent.exact(x)
    assert float(close.abs().max()) < 0.3
