from __future__ import annotations

import pytest
import torch

from gmbench.tasks.discrete.ising.exact import all_states, enumerate_probabilities, log_partition
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.moments import (
    exact_moments,
    magnetisation_distribution,
    sample_correlation,
    sample_energy_per_site,
    sample_magnetisation,
    spin_correlation,
)


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("sigma", [-0.3, 0.2])
def test_exact_moments_against_enumeration(side, sigma):
    J = couplings(side, sigma)
    p = enumerate_probabilities(J)
    s = 2 * all_states(side**2).double() - 1
    moments = exact_moments(side, sigma)

    energy = -(p * ((s @ J) * s).sum(1)).sum() / side**2
    assert moments.energy_per_site == pytest.approx(float(energy), abs=1e-12)

    magnetisation = torch.zeros(side**2 + 1, dtype=torch.float64)
    magnetisation.index_add_(0, s.sum(1).abs().long(), p)
    torch.testing.assert_close(moments.magnetisation, magnetisation, atol=1e-12, rtol=0)

    covariance = (s * p[:, None]).mT @ s
    for dr in range(side):
        for dc in range(side):
            pairs = covariance[0, dr * side + dc]
            assert float(moments.correlation[dr, dc]) == pytest.approx(float(pairs), abs=1e-12)


@pytest.mark.parametrize(("side", "sigma"), [(7, -0.2), (6, 0.2203)])
def test_correlation_and_magnetisation_tell_the_same_susceptibility(side, sigma):
    """<(sum s)^2> = D sum of all correlations: two routes through different code."""
    p = magnetisation_distribution(side, sigma)
    second_moment = (torch.arange(side**2 + 1).double().square() * p).sum()
    assert float(second_moment) == pytest.approx(side**2 * float(spin_correlation(side, sigma).sum()), rel=1e-11)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)


def test_energy_is_the_slope_of_log_z():
    side, sigma, h = 7, 0.15, 1e-4
    above, below = (log_partition(couplings(side, sigma + d), side) for d in (h, -h))
    slope = (above - below) / (2 * h)
    assert exact_moments(side, sigma).energy_per_site == pytest.approx(-sigma * slope / side**2, abs=1e-7)


def test_sample_moments_of_known_states():
    side = 4
    stripes = torch.tensor([1.0, 0.0] * 8)[None]
    up = torch.ones(1, 16)
    x = torch.cat([up, stripes, up])
    J = couplings(side, 0.1)
    torch.testing.assert_close(sample_energy_per_site(x, J), torch.tensor([-0.4, 0.0, -0.4]).double())
    magnetisation = sample_magnetisation(x)
    assert magnetisation[16] == pytest.approx(2 / 3)
    assert magnetisation[0] == pytest.approx(1 / 3)
    correlation = sample_correlation(x, side)
    torch.testing.assert_close(correlation[0], torch.ones(side, side).double())
    torch.testing.assert_close(correlation[1], torch.tensor([1.0, -1.0, 1.0, -1.0]).double().expand(side, side))


def test_sample_correlation_against_shifts():
    side = 5
    x = torch.randint(0, 2, (6, 25), generator=torch.Generator().manual_seed(0)).float()
    s = (2 * x - 1).double().reshape(6, side, side)
    correlation = sample_correlation(x, side)
    for dr in range(side):
        for dc in range(side):
            expected = (s * s.roll((-dr, -dc), dims=(1, 2))).mean((1, 2))
            torch.testing.assert_close(correlation[:, dr, dc], expected)


def test_large_lattices_are_refused():
    with pytest.raises(ValueError, match="3 to 10"):
        exact_moments(11, 0.1)
