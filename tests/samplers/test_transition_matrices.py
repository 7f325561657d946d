"""Detailed balance, stationarity and acceptance of every kernel by full transition matrices at small D."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gmbench.samplers.dmala import DMALA
from gmbench.samplers.gibbs import GibbsSweep, RandomScanGibbs
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.kernel import Kernel
from gmbench.samplers.target import FunctionTarget
from gmbench.samplers.transition_matrix import all_states, state_index, target_probabilities, transition_matrix


def random_target(dim: int, seed: int = 0) -> FunctionTarget:
    """A smooth, non-quadratic log f, so that first-order estimates of flips are wrong."""
    rng = torch.Generator().manual_seed(seed)
    weight = 1.5 * torch.randn(dim, 5, generator=rng, dtype=torch.float64)
    bias = torch.randn(5, generator=rng, dtype=torch.float64)
    return FunctionTarget(lambda x: 1.5 * torch.sin(x.double() @ weight + bias).sum(1))


def flow(kernel: Kernel, target: FunctionTarget, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    matrix, p = transition_matrix(kernel, target, dim), target_probabilities(target, dim)
    return matrix, p, p[:, None] * matrix


REVERSIBLE = [
    RandomScanGibbs(1),
    RandomScanGibbs(3),
    GibbsWithGradients(),
    GibbsWithGradients(rule="barker"),
    GibbsWithGradients(exact=True),
    DMALA(0.2),
    DMALA(2.0, rule="barker"),
]


@pytest.mark.parametrize("dim", [3, 4])
@pytest.mark.parametrize("kernel", REVERSIBLE, ids=str)
def test_detailed_balance(kernel: Kernel, dim: int) -> None:
    matrix, p, mass = flow(kernel, random_target(dim), dim)
    torch.testing.assert_close(matrix.sum(1), torch.ones(2**dim, dtype=torch.float64))
    assert (matrix >= -1e-12).all()
    torch.testing.assert_close(mass, mass.T, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(p @ matrix, p)
    reach = torch.linalg.matrix_power(matrix, 200)  # irreducible: everything goes everywhere
    assert (reach > 0).all()


@pytest.mark.parametrize("dim", [3, 4])
def test_a_gibbs_sweep_is_stationary_but_not_reversible(dim: int) -> None:
    matrix, p, mass = flow(GibbsSweep(), random_target(dim), dim)
    torch.testing.assert_close(p @ matrix, p)
    torch.testing.assert_close(matrix.sum(1), torch.ones_like(p))
    assert (mass - mass.T).abs().max() > 1e-3


def test_dula_misses_the_target_by_little_at_small_steps() -> None:
    target = random_target(4)
    p = target_probabilities(target, 4)
    gaps = []
    for step_size in (0.08, 0.3, 2.0):
        matrix = transition_matrix(DMALA(step_size, mh=False), target, 4)
        torch.testing.assert_close(matrix.sum(1), torch.ones_like(p))
        law = torch.linalg.matrix_power(matrix, 2**20)[0]
        torch.testing.assert_close(law @ matrix, law, rtol=1e-6, atol=1e-9)
        gaps.append(float(0.5 * (law - p).abs().sum()))
    quadratic = FunctionTarget(lambda x: pair_energy(x, 4))
    law = torch.linalg.matrix_power(transition_matrix(DMALA(0.05, mh=False), quadratic, 4), 2**24)[0]
    near = float(0.5 * (law - target_probabilities(quadratic, 4)).abs().sum())
    assert gaps[2] > gaps[1] > 0.02  # larger steps, larger error
    assert near < 1e-3  # where first-order estimates are exact, the error vanishes with the step


def pair_energy(x: Tensor, dim: int, diagonal: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    half = 0.3 * torch.randn(dim, dim, generator=rng, dtype=torch.float64).triu(1)
    couplings = half + half.T + diagonal * torch.eye(dim, dtype=torch.float64)
    s = 2 * x.double() - 1
    return (s @ couplings * s).sum(1)


def test_first_order_flips_are_exact_for_pairs_up_to_the_diagonal() -> None:
    x = all_states(4)
    plain, shifted = (FunctionTarget(lambda x, d=d: pair_energy(x, 4, d)) for d in (0.0, 0.25))
    exact = GibbsWithGradients(exact=True).look(x, plain).delta
    torch.testing.assert_close(GibbsWithGradients().look(x, plain).delta, exact)
    # s_i^2 is constant on the states but not to the gradient: d/dx_i (0.25 s_i^2) = s_i, times -s_i
    torch.testing.assert_close(GibbsWithGradients().look(x, shifted).delta, exact - 4 * 0.25)
    one = transition_matrix(GibbsWithGradients(), plain, 4)
    torch.testing.assert_close(one, transition_matrix(GibbsWithGradients(exact=True), plain, 4))
    # a common shift of all d_i leaves the softmax as it is
    torch.testing.assert_close(one, transition_matrix(GibbsWithGradients(), shifted, 4))


def test_acceptance_ratio_of_gwg_by_enumeration() -> None:
    target = random_target(3, seed=5)
    kernel = GibbsWithGradients(exact=True)
    x = all_states(3)
    f = target.log_prob(x)
    here = kernel.look(x, target)
    for a in range(8):
        neighbours = [a ^ 4, a ^ 2, a ^ 1]  # bit 0 is the highest
        weights = {b: torch.exp((f[b] - f[a]) / 2) for b in neighbours}
        for b in neighbours:
            back = [b ^ 4, b ^ 2, b ^ 1]
            q_ab = weights[b] / sum(weights.values())
            q_ba = torch.exp((f[a] - f[b]) / 2) / sum(torch.exp((f[c] - f[b]) / 2) for c in back)
            expected = torch.log(torch.exp(f[b] - f[a]) * q_ba / q_ab)
            rows = [type(here)(here.log_prob[[i]], here.delta[[i]]) for i in (a, b)]
            actual = kernel.log_ratio(x[[a]], x[[b]], rows[0], rows[1])
            torch.testing.assert_close(actual[0], expected)


def test_dmala_proposals_are_a_product_over_bits() -> None:
    target = random_target(3, seed=2)
    kernel = DMALA(0.7)
    x = all_states(3)
    delta = kernel.look(x, target).delta
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(target.log_prob(leaf).sum(), leaf)
    for a in range(8):
        # the definition: softmax over y_i in {0, 1} of grad_i (y_i - x_i) / 2 - (y_i - x_i)^2 / (2 step)
        move = torch.tensor([0.0, 1.0], dtype=torch.float64)[None] - x[a][:, None]  # (D, 2)
        table = torch.softmax(grad[a][:, None] * move / 2 - move**2 / (2 * 0.7), dim=1)
        expected = torch.stack([table[range(3), x[b].long()].prod() for b in range(8)])
        actual = kernel.log_proposal(x[[a] * 8], x, delta[[a] * 8]).exp()
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(actual.sum(), torch.ones((), dtype=torch.float64))


def test_metropolis_moves_more_often_than_barker() -> None:
    for make in (lambda rule: GibbsWithGradients(rule=rule), lambda rule: DMALA(0.5, rule=rule)):
        fast, slow = (transition_matrix(make(rule), random_target(4), 4) for rule in ("metropolis", "barker"))
        off = ~torch.eye(16, dtype=torch.bool)
        assert (fast[off] >= slow[off] - 1e-12).all()
        assert (fast[off] <= 2 * slow[off] + 1e-12).all()
        assert fast[off].sum() > 1.05 * slow[off].sum()


def test_states_and_their_indices_agree() -> None:
    assert all_states(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert state_index(all_states(5)).tolist() == list(range(32))
    with pytest.raises(ValueError, match="at most 10"):
        transition_matrix(GibbsSweep(), random_target(11), 11)
    with pytest.raises(TypeError, match="object"):
        transition_matrix(object(), random_target(3), 3)  # type: ignore[arg-type]
