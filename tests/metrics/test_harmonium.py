"""Annealing of harmoniums against enumerated log Z and log-likelihoods, with bounds on the right sides."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from building import rng
from gmbench.metrics import harmonium
from gmbench.metrics.ais import Schedule
from gmbench.metrics.harmonium import ais_harmonium, exact_log_partition, log_density, raise_harmonium
from gmbench.metrics.likelihood import nll
from gmbench.metrics.log_partition import binary_states, enumerate_log_partition
from gmbench.model import Harmonium


def machine(num_visible: int, num_hidden: int, scale: float, seed: int = 0) -> Harmonium:
    draw = rng(seed)
    W = scale * torch.randn(num_visible, num_hidden, generator=draw)
    return Harmonium(W, torch.randn(num_visible, generator=draw), torch.randn(num_hidden, generator=draw))


def half(of: Harmonium) -> Tensor:
    return torch.full((len(of.visible_bias),), 0.5)


def exact_log_p(of: Harmonium, v: Tensor) -> Tensor:
    return log_density(of, v.double()) - exact_log_partition(of)


def exact_samples(of: Harmonium, num: int, seed: int) -> Tensor:
    states = torch.cat(list(binary_states(len(of.visible_bias))))
    return states[torch.multinomial(exact_log_p(of, states).exp(), num, replacement=True, generator=rng(seed))]


def test_enumeration_of_either_layer_agrees() -> None:
    for sizes in ((9, 12), (12, 9)):
        of = machine(*sizes, scale=1.0)
        over_visible = enumerate_log_partition(lambda v, of=of: log_density(of, v.double()), sizes[0])  # type: ignore[misc]
        assert float(exact_log_partition(of)) == pytest.approx(over_visible.value, abs=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_ais_finds_log_z_of_strong_machines(seed: int, schedule: Schedule) -> None:
    of = machine(16, 10, scale=1.2, seed=seed)
    base = torch.linspace(0.2, 0.8, 16)
    result = ais_harmonium(of, base, num_chains=500, num_steps=500, rng=rng(seed + 10), schedule=schedule)
    assert result.log_z.stderr is not None and result.log_z.stderr < 0.2
    assert abs(result.log_z.value - float(exact_log_partition(of))) < 3 * result.log_z.stderr
    assert (result.log_z.kind, result.log_z.n, result.num_evaluations) == ("lower_bound", 500, 999)
    assert result.log_weights.shape == (500,) and result.log_weights.dtype == torch.float64
    assert f"500 {schedule} steps, ESS" in result.log_z.note


def test_ais_of_many_visible_bits() -> None:
    draw = rng(3)
    probs = 0.05 + 0.6 * torch.rand(784, generator=draw)
    of = Harmonium(
        0.1 * torch.randn(784, 10, generator=draw), torch.logit(probs), torch.full((10,), -1.0)
    )  # hidden bits that each shift a picture
    few, many = (ais_harmonium(of, probs, num_chains=100, num_steps=t, rng=draw) for t in (10, 300))
    assert many.log_z.stderr is not None and many.log_z.stderr < 0.1
    assert abs(many.log_z.value - float(exact_log_partition(of))) < 3 * many.log_z.stderr
    assert few.ess < 0.8 * many.ess <= 100


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_weights_are_unbiased_for_z_with_any_number_of_steps(num_steps: int) -> None:
    of = machine(8, 5, scale=0.7, seed=1)
    log_w = ais_harmonium(of, half(of), num_chains=40_000, num_steps=num_steps, rng=rng(2)).log_weights
    w = (log_w - exact_log_partition(of)).exp()
    stderr = float(w.std()) / 200
    assert stderr < 0.03
    assert abs(float(w.mean()) - 1) < 3 * stderr


def test_standard_error_covers() -> None:
    of = machine(16, 10, scale=0.4, seed=4)
    log_z, inside, draw = float(exact_log_partition(of)), 0, rng(5)
    for _ in range(300):
        e = ais_harmonium(of, half(of), num_chains=200, num_steps=20, rng=draw).log_z
        assert e.stderr is not None
        inside += abs(e.value - log_z) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= 0.98


def test_few_steps_underestimate_log_z() -> None:
    of, draw = machine(16, 10, scale=1.2), rng(6)
    found = [ais_harmonium(of, half(of), num_chains=4, num_steps=3, rng=draw).log_z.value for _ in range(100)]
    short = float(exact_log_partition(of)) - torch.tensor(found)
    assert float(short.mean()) - 3 * float(short.std()) / 10 > 0.5


def independent(num_visible: int, num_hidden: int, seed: int) -> Harmonium:
    draw = rng(seed)
    return Harmonium(
        torch.zeros(num_visible, num_hidden),
        torch.randn(num_visible, generator=draw),
        3 * torch.randn(num_hidden, generator=draw),
    )


def test_independent_bits_leave_no_noise_and_little_rounding() -> None:
    of = independent(784, 500, seed=7)
    truth = float(softplus(of.visible_bias.double()).sum() + softplus(of.hidden_bias.double()).sum())
    result = ais_harmonium(of, of.visible_bias.sigmoid(), num_chains=2, num_steps=300, rng=rng(8))
    assert result.log_z.value == pytest.approx(truth, abs=2e-3)  # of 900 nats, in float32
    assert result.ess == pytest.approx(2, abs=1e-6)


def test_raise_keeps_points_and_chains_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmonium, "MAX_CHAINS", 7)
    of, v = independent(6, 4, seed=9), torch.cat(list(binary_states(6)))
    log_p = raise_harmonium(of, of.visible_bias.sigmoid(), v, num_chains=3, num_steps=2, rng=rng())
    assert log_p.dtype == torch.float64
    torch.testing.assert_close(log_p, exact_log_p(of, v), atol=1e-5, rtol=0)


def end_of_annealing(of: Harmonium, base: Tensor, num_steps: int) -> Tensor:
    """p_ann of all states, (2^V,): the base carried through the matrices of the block Gibbs steps at k / T."""

    def independent_bits(log_odds: Tensor, bits: Tensor) -> Tensor:
        return (bits * logsigmoid(log_odds) + (1 - bits) * logsigmoid(-log_odds)).sum(-1).double().exp()

    visible, hidden = (torch.cat(list(binary_states(size))) for size in of.weight.shape)
    p = independent_bits(torch.logit(base), visible)
    for k in range(1, num_steps + 1):
        beta = k / num_steps
        upward = independent_bits((beta * (visible @ of.weight + of.hidden_bias))[:, None], hidden)
        bias = (1 - beta) * torch.logit(base) + beta * of.visible_bias
        downward = independent_bits((bias + beta * hidden @ of.weight.T)[:, None], visible)
        p = p @ upward @ downward
    return p


@pytest.mark.parametrize("num_steps", [1, 3])
def test_raise_is_unbiased_for_the_end_of_annealing(num_steps: int) -> None:
    of = Harmonium(*(0.5 * part for part in machine(5, 4, scale=1.4, seed=11)))
    base, states = torch.linspace(0.3, 0.7, 5), torch.cat(list(binary_states(5)))
    exact = end_of_annealing(of, base, num_steps)
    draw = rng(12)
    ratio = torch.stack([
        raise_harmonium(of, base, states, num_chains=200, num_steps=num_steps, rng=draw).exp() / exact
        for _ in range(40)
    ])  # fmt: skip
    stderr = ratio.std(0) / math.sqrt(40)
    assert float(stderr.max()) < 0.04
    assert float(((ratio.mean(0) - 1) / stderr).abs().max()) < 4
    assert float((exact / exact_log_p(of, states).exp() - 1).abs().max()) > 0.1  # it is not the machine itself


def test_raise_is_conservative_and_tightens() -> None:
    of = machine(16, 10, scale=3.0)
    v = exact_samples(of, 300, seed=13)
    truth, draw = exact_log_p(of, v), rng(14)
    gap, stderr = {}, {}
    for chains, steps in ((2, 3), (2, 10), (20, 10), (2, 1000)):
        slack = truth - raise_harmonium(of, half(of), v, num_chains=chains, num_steps=steps, rng=draw)
        gap[chains, steps], stderr[chains, steps] = float(slack.mean()), float(slack.std()) / math.sqrt(300)
    assert gap[2, 3] > gap[2, 10] + 1 and gap[2, 10] > gap[2, 1000] + 0.8  # steps tighten the bound
    assert gap[2, 10] > gap[20, 10] + 0.5  # so do chains
    assert all(gap[budget] > 3 * stderr[budget] for budget in ((2, 3), (2, 10), (20, 10)))
    assert -3 * stderr[2, 1000] < gap[2, 1000] < 0.1
    estimate = nll(truth - gap[2, 10], "lower_bound")
    assert estimate.kind == "upper_bound" and not estimate.optimistic("lower")


def test_the_same_generator_gives_the_same_result_and_the_machine_is_left_alone() -> None:
    of = machine(8, 5, scale=1.0)
    before = [part.clone() for part in of]
    state = torch.get_rng_state()
    one, two = (ais_harmonium(of, half(of), num_chains=5, num_steps=4, rng=rng(1)).log_weights for _ in range(2))
    assert torch.equal(one, two)
    v = exact_samples(of, 5, seed=2)
    one, two = (raise_harmonium(of, half(of), v, num_chains=2, num_steps=4, rng=rng(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, of, strict=True))


def test_bad_input_is_refused() -> None:
    of = machine(6, 4, scale=1.0)
    v = torch.zeros(2, 6)
    with pytest.raises(ValueError, match="strictly"):
        ais_harmonium(of, torch.ones(6), num_chains=4, num_steps=2, rng=rng())
    with pytest.raises(ValueError, match=r"base_probs must have shape \(6,\)"):
        ais_harmonium(of, torch.full((5,), 0.5), num_chains=4, num_steps=2, rng=rng())
    with pytest.raises(ValueError, match="num_chains must be at least 2"):
        ais_harmonium(of, half(of), num_chains=1, num_steps=2, rng=rng())
    with pytest.raises(ValueError, match="num_steps"):
        raise_harmonium(of, half(of), v, num_chains=1, num_steps=0, rng=rng())
    with pytest.raises(ValueError, match="only 0 and 1"):
        raise_harmonium(of, half(of), v - 1, num_chains=1, num_steps=2, rng=rng())
    with pytest.raises(ValueError, match="shape"):
        raise_harmonium(of, half(of), v[:, :4], num_chains=1, num_steps=2, rng=rng())
    broken = of._replace(weight=of.weight * math.nan)
    with pytest.raises(ValueError, match="the weight of the harmonium must be finite"):
        ais_harmonium(broken, half(of), num_chains=4, num_steps=2, rng=rng())
