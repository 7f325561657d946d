"""The VAE's bounds against torch.distributions, quadrature, plain formulas and finite differences; its capabilities."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn.functional import softplus

from building import card_of, from_card, rng
from gmbench.baselines.latent import bits
from gmbench.baselines.latent.networks import NetworkConfig, build_decoder, build_encoder
from gmbench.baselines.latent.vae.model import VAE
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

SMALL = BinaryVector(6, (2, 3))
IMAGE = BinaryVector(16, (4, 4))


def build(space: BinaryVector, **changes: Any) -> VAE:
    return from_card(VAE, space, "dynamic_mnist", **{"latent_dim": 2, "hidden": 20, **changes})


def sharp(space: BinaryVector, **changes: Any) -> VAE:
    """A model whose decoder is far from constant, and whose kept weights are those that train."""
    model = build(space, **changes)
    with torch.no_grad():
        for index, parameter in enumerate(model.network.decoder.parameters()):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=rng(index)))
    model.best.network.load_state_dict(model.network.state_dict())
    return model


def log_p(model: VAE, x: Tensor) -> Tensor:
    """log p(x) (B,) of a model with two latents, by the rectangle rule, accurate for such integrands."""
    axis = torch.linspace(-7, 7, 90, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)  # (G, 2)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(1) + 2 * (axis[1] - axis[0]).log()
    logits = model.best.network.decoder(z.float()).detach().double()  # (G, D)
    log_x = logits @ x.double().T - softplus(logits).sum(1, keepdim=True)  # (G, B)
    return torch.logsumexp(log_prior[:, None] + log_x, 0)


def bars() -> Tensor:
    """The 4x4 images with some rows set, or some columns: 30 of them, (30, 16)."""
    rows = all_states(4).float()[:, :, None].expand(16, 4, 4)
    both = torch.cat([rows, rows.transpose(1, 2)]).reshape(32, 16)
    return torch.unique(both, dim=0)


def data_from(states: Tensor, space: BinaryVector, num_train: int | None = None) -> Data:
    def fresh(num: int, generator: Generator) -> Tensor:
        return states[torch.randint(len(states), (num,), generator=generator)]

    train = None if num_train is None else fresh(num_train, rng(8))

    def draw(num: int, generator: Generator) -> Tensor:
        return fresh(num, generator) if train is None else train[torch.randint(len(train), (num,), generator=generator)]

    return Data(space, train, draw, fresh(200, rng(9)))


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_log_likelihood_is_that_of_torch_and_blocks_do_not_change_it(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sharp(IMAGE, architecture=architecture, channels=4)
    x = (torch.rand(7, 16, generator=rng(1)) < 0.4).float()
    z = torch.randn(5, 7, 2, generator=rng(2))
    logits = model.best.network.decoder(z.reshape(35, 2)).reshape(5, 7, 16)
    expected = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    found = model.log_likelihood(x, z)
    torch.testing.assert_close(found, expected)
    assert found.std() > 1 and not found.requires_grad
    torch.testing.assert_close(model.decode(z[0]), logits[0].sigmoid())
    for rows in (3, 10, 20):
        monkeypatch.setattr(bits, "ROWS", rows)
        torch.testing.assert_close(model.log_likelihood(x, z), found)
        torch.testing.assert_close(model.decode(z[0]), logits[0].sigmoid())
        torch.testing.assert_close(model.posterior(x).mean, model.encode(x))


def test_the_training_steps_elbo_is_a_monte_carlo_estimate_by_torch() -> None:
    model = sharp(SMALL, num_samples=4000)
    x = all_states(6)[[3, 17, 40]].float()
    found = model.bound(x, SimpleNamespace(rng=rng(3), fraction=0.5))  # type: ignore[arg-type]
    q, num = model.posterior(x), 20_000
    with torch.random.fork_rng():
        torch.manual_seed(4)
        z = q.sample((num,))
    log_joint = model.prior().log_prob(z) + Bernoulli(logits=model.network.decoder(z)).log_prob(x).sum(-1)
    integrand = (log_joint - q.log_prob(z)).mean(1).detach()
    error = 5 * float(integrand.std()) * math.sqrt(1 / num + 1 / 4000)
    assert error < 0.2
    assert float(found.detach()) == pytest.approx(float(integrand.mean()), abs=error)
    # the part that is analytic
    noise = torch.randn(3, 3, 2, generator=rng(5))
    with torch.no_grad():
        mean, log_std = model.network.posterior(x)
        likelihood = model.network.log_likelihood(x, mean + log_std.exp() * noise).mean()
        kl = kl_divergence(q, model.prior()).mean()
        torch.testing.assert_close(model.network.elbo(x, noise), likelihood - kl)
        torch.testing.assert_close(model.network.elbo(x, noise, kl_weight=0.25), likelihood - kl / 4)
        torch.testing.assert_close(model.network.elbo(x, noise, floor=50.0), likelihood - 100.0)


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_the_weight_of_the_kl_term_follows_the_schedule(bound: str) -> None:
    model = sharp(SMALL, bound=bound, annealing="cyclical")
    x = all_states(6)[:20].float()

    def at(fraction: float) -> float:
        return float(model.bound(x, SimpleNamespace(rng=rng(6), fraction=fraction)).detach())  # type: ignore[arg-type]

    nothing, half, whole = at(0.25), at(0.25 + 0.0625), at(0.45)
    assert half == pytest.approx((nothing + whole) / 2, abs=1e-5)
    assert nothing > whole + 0.1


def test_one_importance_sample_is_the_elbos_integrand() -> None:
    model = sharp(SMALL)
    x, noise = all_states(6)[10:30].float(), torch.randn(1, 20, 2, generator=rng(7))
    q = model.posterior(x)
    z = q.mean + q.stddev * noise
    expected = model.log_likelihood(x, z) + model.prior().log_prob(z) - q.log_prob(z)
    found = model.network.importance_bound(x, noise)
    torch.testing.assert_close(found.detach(), expected.mean())


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_gradients_agree_with_finite_differences(bound: str) -> None:
    network = sharp(SMALL).network.double()
    x, noise = all_states(6)[::9].double(), torch.randn(3, 8, 2, generator=rng(8), dtype=torch.float64)
    function = network.elbo if bound == "elbo" else network.importance_bound
    parameters = list(network.parameters())
    gradient = torch.autograd.grad(function(x, noise), parameters)
    for seed in range(3):
        towards = [torch.randn(p.shape, generator=rng(seed), dtype=torch.float64) for p in parameters]
        expected = sum(float((g * d).sum()) for g, d in zip(gradient, towards, strict=True))
        values = []
        for size in (1e-5, -2e-5, 1e-5):
            with torch.no_grad():
                for p, d in zip(parameters, towards, strict=True):
                    p.add_(size * d)
                values.append(float(function(x, noise)))
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-5)


def test_quadrature_probabilities_sum_to_one_and_bounds_stay_below_them() -> None:
    model = sharp(SMALL)
    x = all_states(6).float()
    exact = log_p(model, x)
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-5)
    bounds = []
    with torch.no_grad():
        for num in (1, 5, 2000):
            noise = torch.randn(400 if num < 10 else 4, num, 64, 2, generator=rng(num))
            bounds.append(float(torch.stack([model.network.importance_bound(x, draws) for draws in noise]).mean()))
    assert bounds[0] < bounds[1] - 0.05 < bounds[2]
    assert bounds[2] == pytest.approx(float(exact.mean()), abs=0.02)


def test_samples_follow_the_probabilities() -> None:
    model, num = sharp(SMALL), 20_000
    x = model.sample(num, rng=rng(10))
    SMALL.validate(x)
    expected = log_p(model, all_states(6)).exp() * num
    counts = torch.bincount(state_index(x), minlength=64).double()
    assert float(((counts - expected).square() / expected).sum()) < 63 + 5 * math.sqrt(2 * 63)
    assert model.sample(700, rng=rng(1)).equal(model.sample(700, rng=rng(1)))


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
def test_a_short_fit_of_bars_has_a_bound_close_to_the_exact_likelihood(bound: str) -> None:
    states = bars()
    changes = {"hidden": 64, "num_steps": 700, "batch_size": 100, "learning_rate": 1e-2, "validate_every": 350}
    model = build(IMAGE, bound=bound, num_samples=1 if bound == "elbo" else 5, **changes)
    Trainer(seed=0).fit(model, data_from(states, IMAGE))
    exact = log_p(model, states)
    p = states.mean(0)
    independent = float((states * p.log() + (1 - states) * (1 - p).log()).sum(1).mean())
    assert independent < -10 and float(exact.mean()) > independent + 3
    with torch.no_grad():
        noise = torch.randn(2000, len(states), 2, generator=rng(11))
        weights = model.best.network.log_weights(states, noise).double()
    num = 1 if bound == "elbo" else 5
    trained = (torch.logsumexp(weights.unflatten(0, (-1, num)), 1) - math.log(num)).mean(0)  # (30,)
    tight = torch.logsumexp(weights, 0) - math.log(2000)
    assert float((trained - exact).max()) < 0.02
    assert 0 < float((exact - trained).mean()) < 1.5
    assert float((exact - tight).mean()) == pytest.approx(0, abs=0.15)


def test_the_best_weights_on_validation_data_are_the_model() -> None:
    states = bars()
    model = build(IMAGE, hidden=128, num_steps=500, batch_size=12, learning_rate=1e-2, validate_every=50)
    Trainer(seed=0).fit(model, data_from(states, IMAGE, num_train=12))  # few enough to be learned by heart
    noise = torch.randn(500, 200, 2, generator=rng(12))
    x = data_from(states, IMAGE).validation
    with torch.no_grad():
        best, last = (-float(net.importance_bound(x, noise)) for net in (model.best.network, model.network))
    assert best == pytest.approx(float(model.best.loss), abs=0.3)
    assert best < last - 0.5


@pytest.mark.parametrize("layout", [(4, 4), (8, 8), (28, 28), (10, 10), (2, 16), (1, 5), (1, 1), ()])
def test_convolutions_fit_any_layout_of_two_axes(layout: tuple[int, ...]) -> None:
    space = BinaryVector(math.prod(layout) if layout else 9, layout)
    values = {"hidden": 8, "channels": 1 + len(layout) // 2, "num_layers": 2, "activation": "tanh", "latent_dim": 3}
    config = NetworkConfig(architecture="conv", **values)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = build_encoder(config, space, 5), build_decoder(config, space)
    x = torch.rand(2, space.dim, generator=rng(), requires_grad=True)
    features = encoder(x)
    assert features.shape == (2, 5)
    (grad,) = torch.autograd.grad(features.sum(), x)
    assert (grad != 0).all()  # no pixel is out of sight
    z = torch.randn(4, 3, generator=rng(1))
    logits = decoder(z)
    assert logits.shape == (4, space.dim) and decoder.bias.shape == (space.dim,)
    assert (logits.std(0) > 0).all()  # and none is beyond the code's reach


def test_convolutions_of_three_axes_are_refused() -> None:
    with pytest.raises(UserError, match="two axes"):
        build(BinaryVector(8, (2, 2, 2)), architecture="conv")
    assert build(BinaryVector(8, (2, 2, 2))).sample(2, rng=rng()).shape == (2, 8)


def test_free_bits_of_the_importance_weighted_bound_are_refused() -> None:
    with pytest.raises(UserError, match="free_bits"):
        build(SMALL, bound="iwae", free_bits=0.1)


def test_free_bits_keep_information_in_the_latents() -> None:
    """Bits that are independent need no latent: the KL term empties them, unless that much is free."""
    states, kls = all_states(6).float(), []
    for floor in (0.0, 0.3):
        model = build(SMALL, num_steps=300, learning_rate=1e-2, free_bits=floor, validate_every=300)
        Trainer(seed=0).fit(model, data_from(states, SMALL))
        kls.append(float(kl_divergence(model.posterior(states), model.prior()).mean()))
    assert kls[0] < 0.1 < 0.35 < kls[1]


def test_training_starts_at_the_log_odds_of_the_datas_means() -> None:
    model = build(IMAGE, num_steps=1, learning_rate=1e-9)
    x = torch.zeros(50, 16)
    x[:, 3] = 1
    Trainer(seed=0).fit(model, data_from(x, IMAGE))
    expected = torch.logit(0.98 * x[0] + 0.01)
    torch.testing.assert_close(model.best.network.decoder.bias.detach(), expected)


def test_bits_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([-30.0, -1.0, 0.0, 2.0, 30.0])
    mean = bits.draw(logits.expand(20_000, 5), rng(13)).mean(0)
    assert mean[0] == 0 and mean[4] == 1
    assert (mean - logits.sigmoid()).abs().max() < 5 * 0.5 / math.sqrt(20_000)
    assert list(bits.block_sizes(2 * bits.ROWS + 1)) == [bits.ROWS, bits.ROWS, 1]


@pytest.mark.parametrize("preset", ["", "conv", "cyclical", "free_bits"])
def test_the_card_agrees_with_the_config_and_the_model(preset: str) -> None:
    assert set(card_of(VAE).presets) == {"conv", "cyclical", "free_bits"}
    for task in ("dynamic_mnist", "ising", "synthetic2d"):
        for track in ("smoke", "small", "medium", "paper"):
            VAE.Config(**card_of(VAE).resolve(task, track, preset))
    model = VAE(VAE.Config(**card_of(VAE).resolve("dynamic_mnist", "smoke", preset)), IMAGE)
    assert {name for name in CAPABILITIES if offers(model, name)} == set(card_of(VAE).capabilities)
    x = model.sample(3, rng=rng())
    torch.testing.assert_close(model.encode(x), model.posterior(x).mean)
    torch.testing.assert_close(model.reconstruct(x), model.decode(model.encode(x)))
    assert model.prior().event_shape == model.posterior(x).event_shape == (16,)
