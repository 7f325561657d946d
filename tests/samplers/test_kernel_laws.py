"""What the kernels do in practice: one-step and long-run laws against the exact ones, counts, and determinism."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from gmbench.samplers.chain import run_chain
from gmbench.samplers.dmala import DMALA
from gmbench.samplers.gibbs import GibbsSweep, RandomScanGibbs
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.kernel import CarryingKernel, Kernel, Transition
from gmbench.samplers.target import FunctionTarget, flip_delta, flipped, log_prob_and_grad, site_delta
from gmbench.samplers.transition_matrix import all_states, state_index, target_probabilities, transition_matrix

DIM = 4
KERNELS: list[Kernel] = [
    GibbsSweep(),
    RandomScanGibbs(3),
    GibbsWithGradients(),
    GibbsWithGradients(exact=True, rule="barker"),
    DMALA(0.5),
    DMALA(0.3, mh=False),
]
INVARIANT = KERNELS[:5]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_target(seed: int = 0, scale: float = 1.0) -> FunctionTarget:
    weight = torch.randn(DIM, 5, generator=generator(seed), dtype=torch.float64)
    return FunctionTarget(lambda x: scale * torch.sin(2 * x.double() @ weight + 0.5).sum(1))


class CountingTarget:
    """Counts evaluations per chain: rows of every call over the number of chains."""

    def __init__(self, num_chains: int) -> None:
        self.num_chains, self.count = num_chains, 0.0

    def log_prob(self, x: Tensor) -> Tensor:
        # a call inside a differentiated region is followed by one backward pass
        self.count += len(x) / self.num_chains * (2 if x.requires_grad else 1)
        return 0.3 * torch.tanh(x.cumsum(1)).sum(1)


class CountingSiteTarget(CountingTarget):
    """A target with differences of its own."""

    def site_delta(self, x: Tensor, i: int | Tensor) -> Tensor:
        self.count += len(x) / self.num_chains
        return torch.zeros(len(x))


def chi_square_p(counts: Tensor, p: Tensor) -> float:
    return float(stats.chisquare(counts.numpy(), (p * counts.sum()).numpy()).pvalue)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_one_step_follows_the_transition_matrix(kernel: Kernel) -> None:
    target = random_target()
    matrix = transition_matrix(kernel, target, DIM)
    num = 8_000
    start = all_states(DIM).float().repeat_interleave(num, dim=0)
    end = state_index(kernel.step(start, target, rng=generator(1)).x)
    statistic, freedom = 0.0, 0
    for a, chunk in enumerate(end.split(num)):
        expected = num * matrix[a]
        counts = torch.bincount(chunk, minlength=2**DIM)
        assert counts[expected < 1e-9].sum() == 0
        enough = expected >= 5
        statistic += float(((counts - expected)[enough] ** 2 / expected[enough]).sum())
        freedom += int(enough.sum()) - 1
    assert 1e-4 < stats.chi2.sf(statistic, freedom) < 1 - 1e-4


@pytest.mark.parametrize("kernel", INVARIANT, ids=str)
def test_the_long_run_law_is_the_target(kernel: Kernel) -> None:
    target = random_target(seed=4, scale=0.4)
    num_steps = 60
    p = target_probabilities(target, DIM)
    mixed = torch.linalg.matrix_power(transition_matrix(kernel, target, DIM), num_steps)[0]
    assert 0.5 * (mixed - p).abs().sum() < 5e-4  # so what the test sees is no leftover of the start
    start = torch.zeros(60_000, DIM)  # independent chains, as the chi-square test assumes
    run = run_chain(kernel, target, start, num_steps, rng=generator(2))
    counts = torch.bincount(state_index(run.x), minlength=2**DIM).double()
    assert chi_square_p(counts, p) > 1e-4
    assert 0.5 * (counts / counts.sum() - p).abs().sum() < 0.008
    assert 0.5 * (1 / 2**DIM - p).abs().sum() > 0.1  # and the target is no uniform law


def test_dula_alone_misses_the_target() -> None:
    target = random_target(seed=4)
    run = run_chain(DMALA(1.0, mh=False), target, torch.zeros(50_000, DIM), 40, rng=generator(2))
    counts = torch.bincount(state_index(run.x), minlength=2**DIM).double()
    assert chi_square_p(counts, target_probabilities(target, DIM)) < 1e-10


def test_evaluations_are_counted() -> None:
    x = torch.zeros(7, DIM)
    expected = {
        GibbsSweep(): DIM + 1,
        RandomScanGibbs(9): 10,
        GibbsWithGradients(): 4,
        GibbsWithGradients(exact=True): None,
        DMALA(0.3): 4,
        DMALA(0.3, mh=False): 2,
    }
    for kernel, count in expected.items():
        target = CountingTarget(7)
        transition = kernel.step(x, target, rng=generator(0))
        if count is None:  # the fallback of flip_delta evaluates log f at x once more than is charged
            assert (target.count, transition.num_evaluations) == (2 * (DIM + 2), 2 * (DIM + 1))
        else:
            assert target.count == transition.num_evaluations == count
    target = CountingSiteTarget(7)
    assert GibbsSweep().step(x, target, rng=generator(0)).num_evaluations == DIM == target.count
    target = CountingTarget(7)
    run = run_chain(GibbsWithGradients(), target, x, 10, rng=generator(0))
    assert target.count == run.num_evaluations == 2 * 11
    target = CountingTarget(7)
    run = run_chain(DMALA(0.3, mh=False), target, x, 10, rng=generator(0))
    assert target.count == run.num_evaluations == 2 * 10


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_steps_are_reproducible_binary_and_leave_their_input(kernel: Kernel) -> None:
    target = random_target()
    start = torch.randint(2, (50, DIM), generator=generator(0)).float()
    before = start.clone()
    one, two = (run_chain(kernel, target, start, 5, rng=generator(3)) for _ in range(2))
    other = run_chain(kernel, target, start, 5, rng=generator(4))
    assert torch.equal(one.x, two.x) and not torch.equal(one.x, other.x)
    assert torch.equal(start, before)
    assert one.x.dtype == start.dtype and ((one.x == 0) | (one.x == 1)).all()
    assert one.accept_rate.ndim == 0 and 0 < one.accept_rate <= 1.0001
    assert not one.x.requires_grad


@pytest.mark.parametrize("kernel", [GibbsWithGradients(), DMALA(0.5)], ids=str)
def test_carrying_the_gradient_changes_no_draw(kernel: CarryingKernel) -> None:
    target, rng = random_target(), generator(5)
    x = torch.zeros(200, DIM)
    rates = []
    for _ in range(6):
        x, rate, _ = kernel.step(x, target, rng=rng)
        rates.append(rate)
    together = kernel.steps(torch.zeros(200, DIM), target, 6, rng=generator(5))
    assert torch.equal(together.x, x)
    torch.testing.assert_close(together.accept_rate, torch.stack(rates).mean())


class StepOnly:
    """A kernel that flips the first bit and knows nothing of carrying."""

    def step(self, x: Tensor, target: FunctionTarget, *, rng: torch.Generator) -> Transition:
        return Transition(flipped(x, 0), torch.tensor(0.5), 3)


def test_run_chain_records_after_every_step() -> None:
    run = run_chain(StepOnly(), random_target(), torch.zeros(2, DIM), 3, rng=generator(0), record=lambda x: x[:, 0])
    assert run.series is not None and run.series.tolist() == [[1, 0, 1], [1, 0, 1]]
    assert run.num_evaluations == 9 and float(run.accept_rate) == pytest.approx(0.5)
    carried = run_chain(
        GibbsWithGradients(), random_target(), torch.zeros(9, DIM), 8, rng=generator(0), record=lambda x: x.sum(1)
    )
    assert carried.series is not None and carried.series.shape == (9, 8)
    assert torch.equal(carried.series[:, -1], carried.x.sum(1))
    assert (carried.series.diff(dim=1).abs() <= 1).all()
    none = run_chain(GibbsSweep(), random_target(), torch.ones(2, DIM), 0, rng=generator(0), record=lambda x: x[:, 0])
    assert none.series is not None and none.series.shape == (2, 0) and none.num_evaluations == 0


def test_general_differences_and_gradients() -> None:
    target = random_target()
    x = all_states(DIM)
    delta = flip_delta(target, x)
    f = target.log_prob(x)
    for i in range(DIM):
        there = f[torch.arange(16) ^ (1 << (DIM - 1 - i))]
        torch.testing.assert_close(delta[:, i], there - f)
        torch.testing.assert_close(site_delta(target, x, i), there - f)
    sites = torch.randint(DIM, (16,), generator=generator(1))
    torch.testing.assert_close(site_delta(target, x, sites), delta[torch.arange(16), sites])
    value, grad = log_prob_and_grad(FunctionTarget(lambda x: (x**2).sum(1)), x)
    torch.testing.assert_close(grad, 2 * x)
    assert torch.equal(value, x.sum(1)) and not value.requires_grad


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="num_sites"):
        RandomScanGibbs(0)
    with pytest.raises(ValueError, match="step_size"):
        DMALA(0.0)
