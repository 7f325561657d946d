from __future__ import annotations

import math

import pytest
import scipy.integrate

from gmbench.tasks.discrete.ising.exact import enumerate_log_partition, log_partition
from gmbench.tasks.discrete.ising.kaufman import kaufman_log_partition
from gmbench.tasks.discrete.ising.lattice import couplings

CRITICAL = math.log(1 + math.sqrt(2)) / 2


def test_worked_values():
    assert kaufman_log_partition(3, 0.2) == pytest.approx(6.669744604314, abs=1e-11)
    assert kaufman_log_partition(10, 0.2) == pytest.approx(73.453097803833, abs=1e-10)


@pytest.mark.parametrize("K", [0.01, 0.2, CRITICAL, 0.4406, 1.0, 3.0])
@pytest.mark.parametrize("side", [3, 4])
def test_against_enumeration(side, K):
    assert kaufman_log_partition(side, K) == pytest.approx(enumerate_log_partition(couplings(side, K / 2)), abs=1e-10)


@pytest.mark.parametrize(("side", "K"), [(5, 0.3), (7, 0.6), (8, -0.7), (8, CRITICAL), (9, 0.2)])
def test_against_the_transfer_matrix(side, K):
    assert kaufman_log_partition(side, K) == pytest.approx(log_partition(couplings(side, K / 2), side), abs=1e-9)


@pytest.mark.parametrize("K", [0.2, 0.4, 0.6])
def test_large_lattices_approach_onsagers_free_energy(K):
    k = 2 * math.sinh(2 * K) / math.cosh(2 * K) ** 2
    integral = scipy.integrate.quad(
        lambda t: math.log((1 + math.sqrt(1 - (k * math.sin(t)) ** 2)) / 2), 0, math.pi / 2, epsabs=1e-12
    )[0]
    onsager = math.log(2 * math.cosh(2 * K)) + integral / math.pi
    side = 400
    # below the transition the two ordered phases add ln 2 to log Z
    expected = side**2 * onsager + (math.log(2) if K > CRITICAL else 0.0)
    assert kaufman_log_partition(side, K) == pytest.approx(expected, abs=1e-5)


def test_signs():
    assert kaufman_log_partition(6, 0.0) == pytest.approx(36 * math.log(2))
    assert kaufman_log_partition(6, -0.3) == kaufman_log_partition(6, 0.3)
    with pytest.raises(ValueError, match="odd side"):
        kaufman_log_partition(9, -0.2)
    with pytest.raises(ValueError, match="at least 3"):
        kaufman_log_partition(2, 0.2)
