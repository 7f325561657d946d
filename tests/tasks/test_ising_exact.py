from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gmbench.tasks.discrete.ising.exact import (
    all_states,
    enumerate_log_partition,
    enumerate_log_weights,
    enumerate_probabilities,
    log_partition,
)
from gmbench.tasks.discrete.ising.kaufman import kaufman_log_partition
from gmbench.tasks.discrete.ising.lattice import adjacency, couplings


def random_lattice_couplings(side: int, scale: float, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(side**2, side**2, dtype=torch.float64, generator=rng) * scale
    return adjacency(side) * (noise + noise.mT) / 2


def test_states_are_the_binary_numbers_in_order():
    expected = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)))
    assert torch.equal(all_states(5), expected)


def test_enumeration_against_a_plain_sum():
    rng = torch.Generator().manual_seed(0)
    J = torch.randn(6, 6, dtype=torch.float64, generator=rng) * 0.3
    weights = []
    for bits in itertools.product([-1.0, 1.0], repeat=6):
        s = np.array(bits)
        weights.append(math.exp(s @ J.numpy() @ s))
    assert enumerate_log_partition(J) == pytest.approx(math.log(sum(weights)), abs=1e-12)
    np.testing.assert_allclose(enumerate_probabilities(J).numpy(), np.array(weights) / sum(weights), rtol=1e-10)
    assert torch.equal(enumerate_log_weights(J, block=7), enumerate_log_weights(J))


def test_enumeration_refuses_large_models():
    with pytest.raises(ValueError, match="20 sites"):
        enumerate_log_partition(torch.zeros(21, 21))


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("sigma", [-0.4, -0.1, 0.1, 0.5])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_transfer_matrix_against_enumeration(side, sigma, boundary):
    J = couplings(side, sigma, boundary=boundary)
    assert log_partition(J, side) == pytest.approx(enumerate_log_partition(J), abs=1e-11)


@pytest.mark.parametrize(("side", "seed"), [(3, 0), (3, 1), (4, 2), (4, 3)])
def test_transfer_matrix_with_every_edge_its_own_coupling(side, seed):
    J = random_lattice_couplings(side, 1.0, seed)
    J += torch.diag(torch.linspace(-1, 1, side**2, dtype=torch.float64)) + 0.1 * torch.eye(side**2)
    assert log_partition(J, side) == pytest.approx(enumerate_log_partition(J), abs=1e-11)


def test_a_gauge_transformation_of_the_uniform_lattice_has_kaufmans_value():
    """g_i g_j J_ij has edges of both signs everywhere and the partition function of J."""
    g = torch.randint(0, 2, (100,), generator=torch.Generator().manual_seed(3)).double() * 2 - 1
    J = g[:, None] * couplings(10, 0.1) * g
    assert (J < 0).any()
    assert log_partition(J, 10) == pytest.approx(kaufman_log_partition(10, 0.2), abs=1e-10)


def test_rows_and_columns_may_change_places():
    side = 7
    J = random_lattice_couplings(side, 0.8, 4)
    transposed = torch.arange(side**2).reshape(side, side).mT.reshape(-1)
    assert log_partition(J, side) == pytest.approx(log_partition(J[transposed][:, transposed], side), abs=1e-10)


def test_frustrated_nine_by_nine_against_the_spectrum():
    K, side = -0.2, 9
    states = np.array(list(itertools.product([-1.0, 1.0], repeat=side)))
    within = K * (states * np.roll(states, -1, 1)).sum(1)
    T = np.exp(K * states @ states.T + within[:, None] / 2 + within / 2)
    expected = math.log((np.linalg.eigvalsh(T) ** side).sum())
    assert log_partition(couplings(side, K / 2), side) == pytest.approx(expected, abs=1e-9)
    assert abs(kaufman_log_partition(side, -K) - expected) > 1e-9  # frustration is real: |K| gives another value


def test_strong_couplings_do_not_overflow():
    J = couplings(8, 30.0)
    assert log_partition(J, 8) == pytest.approx(2 * 60.0 * 64 + math.log(2), abs=1e-8)


def test_couplings_off_the_lattice_are_refused():
    J = couplings(4, 0.1)
    J[0, 2] = J[2, 0] = 0.05
    with pytest.raises(ValueError, match="beyond lattice neighbours"):
        log_partition(J, 4)
    dropped = log_partition(J, 4, tol=0.06)
    assert abs(dropped - enumerate_log_partition(J)) <= 0.1
    with pytest.raises(ValueError, match="3 to 12"):
        log_partition(torch.zeros(169, 169), 13)
