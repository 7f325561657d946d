from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from gmbench.tasks.discrete.ising.exact import enumerate_probabilities
from gmbench.tasks.discrete.ising.lattice import adjacency, couplings
from gmbench.tasks.discrete.ising.moments import (
    exact_moments,
    sample_correlation,
    sample_energy_per_site,
    sample_magnetisation,
)
from gmbench.tasks.discrete.ising.samples import exact_samples, lattice_samples


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square_p_value(x: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Pearson's test over all states; those expected fewer than five times share one cell."""
    num_sites = x.shape[1]
    index = (x.long() * 2 ** torch.arange(num_sites - 1, -1, -1)).sum(1)
    observed = torch.bincount(index, minlength=2**num_sites).double()
    expected = probabilities * len(x)
    rare = expected < 5
    if rare.any():
        observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return float(scipy.stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


@pytest.mark.parametrize("sigma", [-0.2, 0.1, 0.2203])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_three_by_three_over_all_states(sigma, boundary):
    x = exact_samples(3, sigma, 40_000, rng=generator(0), boundary=boundary)
    assert x.dtype == torch.float32
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert chi_square_p_value(x, enumerate_probabilities(couplings(3, sigma, boundary=boundary))) > 1e-3
    wrong = couplings(3, sigma * 1.15, boundary=boundary)
    assert chi_square_p_value(x, enumerate_probabilities(wrong)) < 1e-3


def test_every_edge_its_own_coupling():
    noise = torch.randn(9, 9, dtype=torch.float64, generator=generator(1)) * 0.5
    J = adjacency(3) * (noise + noise.mT) / 2
    x = lattice_samples(J, 3, 40_000, rng=generator(2))
    assert chi_square_p_value(x, enumerate_probabilities(J)) > 1e-3
    upside_down = J.flip(0, 1)
    assert chi_square_p_value(x, enumerate_probabilities(upside_down)) < 1e-6


@pytest.mark.parametrize(("side", "sigma"), [(4, 0.2), (6, -0.3), (7, -0.2), (8, 0.2203)])
def test_moments_of_large_lattices(side, sigma):
    num = 4000
    x = exact_samples(side, sigma, num, rng=generator(3))
    truth = exact_moments(side, sigma)

    energy = sample_energy_per_site(x, couplings(side, sigma))
    z = (energy.mean() - truth.energy_per_site) / (energy.std() / math.sqrt(num))
    assert abs(float(z)) < 4

    correlation = sample_correlation(x, side)
    z = (correlation.mean(0) - truth.correlation) / (correlation.std(0) / math.sqrt(num))
    z[0, 0] = 0
    assert float(z.abs().max()) < 4.5

    p = truth.magnetisation
    common = p * num > 5
    counts = sample_magnetisation(x)[common] * num
    z = (counts - p[common] * num) / (num * p[common] * (1 - p[common])).sqrt()
    assert float(z.abs().max()) < 4.5

    spin = (2 * x - 1).double().mean(1)  # no preferred sign
    assert abs(float(spin.mean() / spin.std()) * math.sqrt(num)) < 4


def test_strong_couplings_are_ordered():
    x = exact_samples(6, 1.0, 500, rng=generator(4))
    assert float(sample_magnetisation(x)[36]) > 0.99
    assert 0.4 < float(x.mean()) < 0.6


def test_one_generator_state_one_sample():
    assert torch.equal(exact_samples(4, 0.2, 50, rng=generator(5)), exact_samples(4, 0.2, 50, rng=generator(5)))
    assert not torch.equal(exact_samples(4, 0.2, 50, rng=generator(5)), exact_samples(4, 0.2, 50, rng=generator(6)))
    assert exact_samples(4, 0.2, 0, rng=generator(5)).shape == (0, 16)


def test_couplings_off_the_lattice_are_refused():
    J = couplings(4, 0.1)
    J[0, 2] = J[2, 0] = 0.05
    with pytest.raises(ValueError, match="lattice neighbours only"):
        lattice_samples(J, 4, 10, rng=generator(0))
