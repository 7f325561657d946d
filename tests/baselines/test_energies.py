"""The shared energies: values against the formula, shortcuts against enumeration, fast against plain sweeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gmbench.baselines.energy.energies import MLPEnergy, QuadraticEnergy
from gmbench.samplers.gibbs import GibbsSweep
from gmbench.samplers.target import FunctionTarget, flip_delta, log_prob_and_grad
from gmbench.samplers.transition_matrix import all_states, state_index, target_probabilities

Energy = QuadraticEnergy | MLPEnergy


def quadratic(dim: int, *, bias: bool) -> QuadraticEnergy:
    rng = torch.Generator().manual_seed(1)
    model = QuadraticEnergy(dim, bias=bias)
    with torch.no_grad():
        model.pairs.copy_(0.4 * torch.randn(model.pairs.shape, generator=rng))
        if model.field is not None:
            model.field.copy_(0.5 * torch.randn(dim, generator=rng))
    return model


def perceptron(dim: int, activation: str = "elu", num_layers: int = 3) -> MLPEnergy:
    rng = torch.Generator().manual_seed(2)
    model = MLPEnergy(dim, 24, num_layers, activation)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.4 if p.ndim > 1 else 0.2))
    return model


def models(dim: int) -> list[Energy]:
    swish = perceptron(dim, "swish", num_layers=1)
    return [quadratic(dim, bias=False), quadratic(dim, bias=True), perceptron(dim), swish]


def bits(num: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randint(2, (num, dim), generator=torch.Generator().manual_seed(seed)).float()


def test_couplings_are_symmetric_and_count_both_orders() -> None:
    model = quadratic(5, bias=True)
    assert model.field is not None
    J, b = model.couplings().detach(), model.field.detach()
    assert torch.equal(J, J.T) and (J.diagonal() == 0).all() and (J[~torch.eye(5, dtype=torch.bool)] != 0).all()
    x = bits(6, 5)
    s = (2 * x - 1).double()
    expected = [
        sum(float(J[i, j] * row[i] * row[j]) for i in range(5) for j in range(5))
        + sum(float(b[i] * row[i]) for i in range(5))
        for row in s
    ]
    assert model.log_prob(x).tolist() == pytest.approx(expected, abs=1e-5)


def test_one_gradient_step_moves_a_pair_as_a_whole() -> None:
    model = QuadraticEnergy(4)
    x = bits(9, 4)
    model.log_prob(x).mean().backward()
    s = 2 * x - 1
    expected = torch.stack([2 * (s[:, i] * s[:, j]).mean() for i in range(4) for j in range(i + 1, 4)])
    torch.testing.assert_close(model.pairs.grad, expected)
    assert model.pairs.shape == (6,) and float(QuadraticEnergy(60).pairs.detach().std()) == pytest.approx(
        0.01, rel=0.15
    )


def test_conditionals_and_pseudo_likelihood_by_enumeration() -> None:
    model = quadratic(4, bias=True)
    x = all_states(4)
    p = target_probabilities(model, 4)
    total = torch.zeros(16, dtype=torch.float64)
    for i in range(4):
        partner = torch.arange(16) ^ (1 << (3 - i))
        one = torch.where(x[:, i] > 0.5, p, p[partner])
        zero = torch.where(x[:, i] > 0.5, p[partner], p)
        torch.testing.assert_close(model.conditional_logits(x)[:, i].detach(), (one / zero).log())
        total += (p / (p + p[partner])).log()
    torch.testing.assert_close(model.pseudo_log_likelihood(x).detach(), total)


def test_the_mlp_is_the_stack_of_layers_it_says() -> None:
    model = perceptron(6)
    stack = nn.Sequential(model.first, nn.ELU(), model.middle[0], nn.ELU(), model.middle[1], nn.ELU(), model.last)
    x = bits(5, 6)
    torch.testing.assert_close(model.log_prob(x), stack(x).squeeze(1))
    sizes = [p.numel() for p in MLPEnergy(32, 256, 3).parameters()]
    assert sum(sizes) == 32 * 256 + 256 + 2 * (256 * 256 + 256) + 256 + 1
    wave = perceptron(6, "swish", num_layers=1)
    torch.testing.assert_close(wave.log_prob(x), wave.last(nn.functional.silu(wave.first(x))).squeeze(1))


@pytest.mark.parametrize("index", range(4))
def test_differences_are_exact(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models(7)[index]
    x = bits(11, 7)
    expected = FunctionTarget(model.log_prob).flip_delta(x)
    torch.testing.assert_close(flip_delta(model, x), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("gmbench.baselines.energy.energies.MAX_ROWS", 30)  # two sites a chunk
    torch.testing.assert_close(model.flip_delta(x), expected, rtol=1e-4, atol=1e-5)
    if isinstance(model, QuadraticEnergy):
        sites = torch.randint(7, (11,), generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(model.site_delta(x, sites), expected[range(11), sites], rtol=1e-4, atol=1e-5)
        for i in range(7):
            torch.testing.assert_close(model.site_delta(x, i), expected[:, i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradient_is_that_of_automatic_differentiation(bias: bool) -> None:
    model = quadratic(7, bias=bias)
    value, grad = log_prob_and_grad(model, bits(11, 7))
    expected_value, expected = log_prob_and_grad(FunctionTarget(model.log_prob), bits(11, 7))
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(grad, expected)
    assert not grad.requires_grad


@pytest.mark.parametrize("index", range(4))
def test_a_fast_sweep_is_the_plain_sweep(index: int) -> None:
    model = models(9)[index].double()
    x = bits(300, 9).double()
    before = x.clone()
    fast = GibbsSweep().step(x, model, rng=torch.Generator().manual_seed(5))
    plain = GibbsSweep().step(x, FunctionTarget(model.log_prob), rng=torch.Generator().manual_seed(5))
    assert torch.equal(fast.x, plain.x) and not torch.equal(fast.x, x)
    assert torch.equal(x, before) and not fast.x.requires_grad
    assert (fast.num_evaluations, plain.num_evaluations) == (9, 10)


@pytest.mark.parametrize("index", range(4))
def test_sweeps_reach_the_law_of_the_energy(index: int) -> None:
    model = models(4)[index]
    x = torch.zeros(40_000, 4)
    rng = torch.Generator().manual_seed(6)
    for _ in range(25):
        x = GibbsSweep().step(x, model, rng=rng).x
    law = torch.bincount(state_index(x), minlength=16).double() / len(x)
    assert 0.5 * (law - target_probabilities(model, 4)).abs().sum() < 0.012


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        QuadraticEnergy(1)
    with pytest.raises(ValueError, match="elu, swish"):
        MLPEnergy(4, 8, 2, "relu")
    with pytest.raises(ValueError, match="num_layers"):
        MLPEnergy(4, 8, 0)
