"""AIS in both directions and RAISE: against enumeration and an RBM's exact log Z, with bounds on the right sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from gmbench.metrics.ais import ais, betas, data_base, raise_, reverse_ais
from gmbench.metrics.likelihood import nll
from gmbench.metrics.log_partition import binary_states, enumerate_log_partition
from gmbench.samplers.dmala import DMALA
from gmbench.samplers.gibbs import GibbsSweep, RandomScanGibbs
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.kernel import Kernel, Transition
from gmbench.samplers.target import FunctionTarget, HasFlipDelta, HasGradient, HasSiteDelta, Target

DIM = 8


@dataclass(frozen=True)
class Quadratic:
    """log f = ½ xᵀJx + h·x, with the cheap single-site difference that kernels may use."""

    J: Tensor
    h: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        return ((x @ self.J) * x).sum(1) / 2 + x @ self.h

    def site_delta(self, x: Tensor, i: int | Tensor) -> Tensor:
        sites = torch.as_tensor(i).expand(len(x))
        field = (x * self.J[sites]).sum(1) + self.h[sites]
        return (1 - 2 * x.gather(1, sites[:, None])[:, 0]) * field


def quadratic(scale: float) -> Quadratic:
    rng = torch.Generator().manual_seed(0)
    upper = scale * torch.randn(DIM, DIM, generator=rng).triu(1)
    return Quadratic(upper + upper.T, scale * torch.randn(DIM, generator=rng))


@dataclass(frozen=True)
class RBM:
    """log f(v) = b·v + Σ_j softplus(c_j + (vW)_j); log Z is a sum over the hidden states."""

    W: Tensor
    b: Tensor
    c: Tensor

    def log_prob(self, v: Tensor) -> Tensor:
        return v @ self.b + softplus(self.c + v @ self.W).sum(1)

    def exact_log_z(self) -> float:
        hidden = torch.cat(list(binary_states(self.W.shape[1])))
        return float(torch.logsumexp((hidden @ self.c + softplus(self.b + hidden @ self.W.T).sum(1)).double(), 0))


TARGET = quadratic(1.0)
STATES = torch.cat(list(binary_states(DIM)))
LOG_Z = enumerate_log_partition(TARGET.log_prob, DIM).value
PROBS = (TARGET.log_prob(STATES) - LOG_Z).exp()
BASE = torch.full((DIM,), 0.5)


def exact_samples(n: int, rng: torch.Generator) -> Tensor:
    return STATES[torch.multinomial(PROBS, n, replacement=True, generator=rng)]


@pytest.mark.parametrize(
    "kernel",
    [GibbsSweep(), RandomScanGibbs(num_sites=3), GibbsWithGradients(), GibbsWithGradients(exact=True), DMALA(0.3)],
)
@pytest.mark.parametrize("shortcuts", [True, False])
def test_both_directions_find_the_enumerated_log_z(kernel: Kernel, shortcuts: bool) -> None:
    rng = torch.Generator().manual_seed(1)
    target = TARGET if shortcuts else FunctionTarget(TARGET.log_prob)
    base = torch.linspace(0.3, 0.7, DIM)
    forward = ais(target, base, kernel, num_chains=1000, num_steps=20, rng=rng)
    reverse = reverse_ais(target, base, exact_samples(1000, rng), kernel, num_steps=20, rng=rng)
    for result in (forward, reverse):
        assert result.log_z.stderr is not None and result.log_z.stderr < 0.2
        assert abs(result.log_z.value - LOG_Z) < 3 * result.log_z.stderr


@dataclass(frozen=True)
class Inspector:
    """A kernel that stays where it is and compares the shortcuts of the target it is given with plain evaluations."""

    seen: list[float]

    def step(self, x: Tensor, target: Target, *, rng: torch.Generator) -> Transition:
        assert isinstance(target, HasFlipDelta) and isinstance(target, HasGradient)
        here = target.log_prob(x)
        neighbours = [target.log_prob((x - torch.eye(DIM)[i]).abs()) - here for i in range(DIM)]
        assert torch.allclose(target.flip_delta(x), torch.stack(neighbours, 1), atol=1e-4)
        if isinstance(target, HasSiteDelta):
            assert torch.allclose(target.site_delta(x, 3), neighbours[3], atol=1e-4)
            each = torch.arange(len(x)) % DIM
            assert torch.allclose(
                target.site_delta(x, each), torch.stack(neighbours, 1)[range(len(x)), each], atol=1e-4
            )
        value, grad = target.log_prob_and_grad(x)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            (reference,) = torch.autograd.grad(target.log_prob(leaf).sum(), leaf)
        assert torch.allclose(value, here) and torch.allclose(grad, reference, atol=1e-4)
        self.seen.append(float(here[0]))
        return Transition(x, x.new_ones(()), 1)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_annealed_shortcuts_equal_plain_evaluations(shortcuts: bool) -> None:
    target = TARGET if shortcuts else FunctionTarget(TARGET.log_prob)
    seen: list[float] = []
    base = torch.linspace(0.2, 0.9, DIM)
    ais(target, base, Inspector(seen), num_chains=20, num_steps=4, rng=torch.Generator().manual_seed(10))
    assert len(seen) == 3


def test_sigmoid_schedule_and_rbm_with_exact_log_z() -> None:
    rng = torch.Generator().manual_seed(2)
    rbm = RBM(
        0.5 * torch.randn(20, 8, generator=rng),
        0.5 * torch.randn(20, generator=rng),
        0.5 * torch.randn(8, generator=rng),
    )
    result = ais(rbm, torch.full((20,), 0.5), GibbsSweep(), num_chains=300, num_steps=30, schedule="sigmoid", rng=rng)
    assert result.log_z.stderr is not None and result.log_z.stderr < 0.1
    assert abs(result.log_z.value - rbm.exact_log_z()) < 3 * result.log_z.stderr
    assert rbm.exact_log_z() == pytest.approx(enumerate_log_partition(rbm.log_prob, 20).value, abs=1e-4)


def test_few_steps_err_on_the_documented_sides() -> None:
    hard, rng = quadratic(3.0), torch.Generator().manual_seed(3)
    log_z = enumerate_log_partition(hard.log_prob, DIM).value
    probs = (hard.log_prob(STATES) - log_z).exp()
    lower, upper = [], []
    for _ in range(40):
        forward = ais(hard, BASE, GibbsSweep(), num_chains=4, num_steps=2, rng=rng)
        samples = STATES[torch.multinomial(probs, 4, replacement=True, generator=rng)]
        reverse = reverse_ais(hard, BASE, samples, GibbsSweep(), num_steps=2, rng=rng)
        lower.append(forward.log_z.value)
        upper.append(reverse.log_z.value)
    assert forward.log_z.kind == "lower_bound" and reverse.log_z.kind == "upper_bound"
    assert sum(lower) / 40 < log_z - 0.5
    assert sum(upper) / 40 > log_z + 0.5
    # The NLL made with the lower bound flatters the model, the one with the upper bound does not.
    assert nll(hard.log_prob(STATES) - lower[0], "upper_bound").optimistic("lower")


def test_standard_error_covers_when_the_weights_are_even() -> None:
    rng = torch.Generator().manual_seed(4)
    easy = quadratic(0.5)
    log_z = enumerate_log_partition(easy.log_prob, DIM).value
    inside = 0
    for _ in range(300):
        e = ais(easy, BASE, RandomScanGibbs(num_sites=2), num_chains=200, num_steps=5, rng=rng).log_z
        assert e.stderr is not None
        inside += abs(e.value - log_z) < 1.96 * e.stderr
    assert 0.91 <= inside / 300 <= 0.98


def test_ess_grows_with_the_steps_and_evaluations_are_counted() -> None:
    rng = torch.Generator().manual_seed(5)
    few, many = (ais(TARGET, BASE, GibbsSweep(), num_chains=500, num_steps=t, rng=rng) for t in (2, 50))
    assert 1 <= few.ess < 0.8 * many.ess <= 500
    assert "ESS" in few.log_z.note and few.log_weights.shape == (500,)
    assert many.num_evaluations == 50 + 49 * DIM


def test_a_target_equal_to_the_base_needs_no_annealing() -> None:
    probs = torch.linspace(0.1, 0.9, DIM)
    target = FunctionTarget(lambda x: x @ torch.logit(probs) + 7)
    result = ais(target, probs, GibbsSweep(), num_chains=10, num_steps=3, rng=torch.Generator().manual_seed(6))
    truth = 7 - float(torch.log1p(-probs).sum())
    assert result.log_z.value == pytest.approx(truth, abs=1e-5)
    assert result.ess == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_raise_is_an_unbiased_estimate_of_a_normalised_distribution(num_steps: int) -> None:
    rng = torch.Generator().manual_seed(7)
    totals = torch.stack(
        [
            raise_(TARGET, BASE, STATES, GibbsSweep(), num_chains=20, num_steps=num_steps, rng=rng).exp().sum()
            for _ in range(20)
        ]
    )
    assert abs(float(totals.mean()) - 1) < 3 * float(totals.std()) / math.sqrt(20)
    assert float(totals.std()) < 0.5


def test_raise_is_conservative_and_tightens() -> None:
    rng = torch.Generator().manual_seed(8)
    x = exact_samples(300, rng)
    truth = nll(TARGET.log_prob(x) - LOG_Z, "exact")
    values = [
        nll(raise_(TARGET, BASE, x, GibbsSweep(), num_chains=5, num_steps=t, rng=rng), "lower_bound")
        for t in (1, 10, 100)
    ]
    assert values[0].value > values[1].value > truth.value  # an upper bound of the NLL
    assert values[0].value - truth.value > 0.1
    assert abs(values[2].value - truth.value) < 0.1
    assert values[0].kind == "upper_bound" and not values[0].optimistic("lower")


def test_schedules() -> None:
    for schedule in ("linear", "sigmoid"):
        path = betas(10, schedule)
        assert path[0] == 0 and path[-1] == 1 and bool((path.diff() > 0).all())
    assert torch.allclose(betas(4), torch.linspace(0, 1, 5, dtype=torch.float64))
    sigmoid = betas(10, "sigmoid")
    assert torch.allclose(sigmoid + sigmoid.flip(0), torch.ones(11, dtype=torch.float64))
    assert sigmoid[1] < 0.05


def test_data_base_stays_inside_the_unit_interval() -> None:
    x = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    assert torch.allclose(data_base(x), torch.tensor([0.01, 0.99, 0.5]))


def test_bad_input_is_refused() -> None:
    rng = torch.Generator().manual_seed(9)
    with pytest.raises(ValueError, match="strictly"):
        ais(TARGET, torch.ones(DIM), GibbsSweep(), num_chains=4, num_steps=2, rng=rng)
    with pytest.raises(ValueError, match="num_steps"):
        ais(TARGET, BASE, GibbsSweep(), num_chains=4, num_steps=0, rng=rng)
    with pytest.raises(ValueError, match="schedule"):
        betas(3, "cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 and 1"):
        reverse_ais(TARGET, BASE, 2 * STATES - 1, GibbsSweep(), num_steps=2, rng=rng)
    with pytest.raises(ValueError, match="NaN"):
        nan = FunctionTarget(lambda x: x[:, 0] * math.nan)
        ais(nan, BASE, GibbsSweep(), num_chains=4, num_steps=1, rng=rng)
