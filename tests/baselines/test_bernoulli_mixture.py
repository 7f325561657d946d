"""The mixture of Bernoullis: EM against Bayes' rule written out, its ascent, recovery of a mixture, enumeration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily

from building import card_of, from_card, rng
from gmbench.baselines.latent.bernoulli_mixture.em import Mixture, Penalty, em_step, seeds, start
from gmbench.baselines.latent.bernoulli_mixture.model import BernoulliMixture
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def build(dim: int, **changes: Any) -> BernoulliMixture:
    return from_card(BernoulliMixture, BinaryVector(dim), "dynamic_mnist", **{"num_components": 3, **changes})


def random_mixture(num: int, dim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixture:
    generator = rng(seed)
    weight = torch.softmax(torch.randn(num, generator=generator, dtype=dtype), 0)
    return Mixture(weight.log(), torch.sigmoid(2 * torch.randn(num, dim, generator=generator, dtype=dtype)))


def with_mixture(mixture: Mixture) -> BernoulliMixture:
    model = build(mixture.mean.shape[1], num_components=len(mixture.mean))
    model.log_weight.copy_(mixture.log_weight)
    model.mean.copy_(mixture.mean)
    return model


def three_patterns() -> Mixture:
    """Three well separated components on 12 bits."""
    mean = torch.full((3, 12), 0.1)
    for k in range(3):
        mean[k, 4 * k : 4 * k + 6] = 0.85  # the last pattern is shorter
    return Mixture(torch.tensor([0.5, 0.3, 0.2]).log(), mean)


def data_from(mixture: Mixture, num_train: int | None = None) -> Data:
    model = with_mixture(mixture)
    train = None if num_train is None else model.sample(num_train, rng=rng(5))
    dim = mixture.mean.shape[1]
    return Data(BinaryVector(dim), train, lambda num, g: model.sample(num, rng=g), model.sample(500, rng=rng(6)))


def test_a_step_of_em_is_bayes_rule_and_weighted_counts() -> None:
    mixture, a, b = random_mixture(3, 5), 0.7, 0.4
    x = (torch.rand(40, 5, generator=rng(1)) < 0.5).double()
    new, objective = em_step(mixture, x, Penalty(a, b))
    pi, mu = mixture.log_weight.exp(), mixture.mean
    joint = torch.tensor(
        [[float(pi[k] * (mu[k] ** row * (1 - mu[k]) ** (1 - row)).prod()) for k in range(3)] for row in x],
        dtype=torch.float64,
    )
    responsibility = joint / joint.sum(1, keepdim=True)
    expected = joint.sum(1).log().sum() + a * (mu * (1 - mu)).log().sum() + b * pi.log().sum()
    assert objective == pytest.approx(float(expected), rel=1e-12)
    for k in range(3):
        r = responsibility[:, k]
        torch.testing.assert_close(new.mean[k], (a + r @ x) / (2 * a + r.sum()), rtol=1e-10, atol=0)
        assert float(new.log_weight[k].exp()) == pytest.approx(float((b + r.sum()) / (40 + 3 * b)), rel=1e-10)


@pytest.mark.parametrize("penalty", [Penalty(0.1, 0.0), Penalty(1.0, 2.0)])
def test_em_never_lowers_the_penalised_likelihood(penalty: Penalty) -> None:
    x = with_mixture(random_mixture(6, 9, torch.float32)).sample(300, rng=rng(2)).double()
    mixture, path = start(x, 5, rng=rng(3)), []
    for _ in range(60):
        mixture, objective = em_step(mixture, x, penalty)
        path.append(objective)
    steps = torch.tensor(path, dtype=torch.float64).diff()
    assert float(steps.min()) > -1e-9
    assert path[-1] - path[0] > 10
    assert float(mixture.log_weight.exp().sum()) == pytest.approx(1)


def test_one_component_is_the_smoothed_mean() -> None:
    data = data_from(three_patterns(), 200)
    model = build(12, num_components=1, smoothing=[0.5])
    Trainer().fit(model, data)
    torch.testing.assert_close(model.mean[0], (data.fixed.sum(0) + 0.5) / 201)


def test_a_known_mixture_is_recovered() -> None:
    truth = three_patterns()
    model = build(12, smoothing=[0.1], max_iterations=100, tolerance=1e-6, num_draws=20_000)
    Trainer(seed=0).fit(model, data_from(truth))
    order = torch.cdist(truth.mean, model.mean).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(model.mean[order], truth.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(model.log_weight[order].exp(), truth.log_weight.exp(), rtol=0, atol=0.02)


def test_validation_picks_the_smoothing() -> None:
    data = data_from(random_mixture(2, 10, torch.float32), 25)
    model = build(10, num_components=8, smoothing=[0.001, 0.5, 500.0])
    Trainer(seed=0).fit(model, data)
    assert int(model.validation_nll.argmin()) == 1  # neither by heart nor blind
    nll = -model.log_prob(data.validation, rng=rng()).double().mean()
    assert float(nll) == pytest.approx(float(model.validation_nll.min()), abs=1e-5)
    assert float(model.validation_nll.max() - nll) > 0.5


def test_log_prob_is_torchs_and_sums_to_one() -> None:
    mixture = random_mixture(4, 10, torch.float32)
    model, states = with_mixture(mixture), all_states(10).float()
    reference = MixtureSameFamily(Categorical(logits=mixture.log_weight), Independent(Bernoulli(mixture.mean), 1))
    log_p = model.log_prob(states, rng=rng())
    torch.testing.assert_close(log_p, reference.log_prob(states))
    assert float(log_p.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_probabilities() -> None:
    model, num = with_mixture(random_mixture(3, 5, torch.float32)), 20_000
    x = model.sample(num, rng=rng(4))
    model.space.validate(x)
    expected = model.log_prob(all_states(5), rng=rng()).double().exp() * num
    counts = torch.bincount(state_index(x), minlength=32)
    assert float(((counts - expected).square() / expected).sum()) < 31 + 5 * math.sqrt(62)


def test_features_and_reconstructions_are_posterior_means() -> None:
    mixture = random_mixture(4, 6, torch.float32)
    model, x = with_mixture(mixture), all_states(6).float()
    likelihood = torch.stack([Independent(Bernoulli(mean), 1).log_prob(x).exp() for mean in mixture.mean], 1)
    joint = likelihood * mixture.log_weight.exp()
    expected = joint / joint.sum(1, keepdim=True)
    torch.testing.assert_close(model.encode(x), expected)
    torch.testing.assert_close(model.reconstruct(x), expected @ mixture.mean)


def test_seeds_are_spread_out() -> None:
    x = torch.cat([torch.zeros(57, 4), torch.eye(4)[:2], torch.ones(1, 4)])
    for seed in range(20):
        # a point that is already a seed is never drawn again while there is another
        assert len(torch.unique(seeds(x, 4, rng=rng(seed)), dim=0)) == 4
    assert seeds(x[:5], 3, rng=rng()).equal(torch.zeros(3, 4))


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_code(track: str) -> None:
    for task in ("dynamic_mnist", "synthetic2d", "ising"):
        BernoulliMixture.Config(**card_of(BernoulliMixture).resolve(task, track))
    assert {c for c in CAPABILITIES if offers(build(4), c)} == set(card_of(BernoulliMixture).capabilities)
