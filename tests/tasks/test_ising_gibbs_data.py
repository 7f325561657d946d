from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from gmbench.tasks.discrete.ising.exact import all_states
from gmbench.tasks.discrete.ising.gibbs_data import gibbs_samples
from gmbench.tasks.discrete.ising.lattice import couplings
from gmbench.tasks.discrete.ising.moments import exact_moments, sample_correlation, sample_energy_per_site

CHAIN = torch.tensor([[0.0, 0.5, -0.2], [0.5, 0.0, 0.4], [-0.2, 0.4, 0.0]], dtype=torch.float64)


def after_one_sweep(J: torch.Tensor, order: list[int]) -> torch.Tensor:
    """The exact distribution after one sweep from the uniform one, by the transition matrix."""
    x = all_states(len(J)).double()
    s = 2 * x - 1
    num = len(x)
    p = torch.full((num,), 1 / num, dtype=torch.float64)
    for i in order:
        transition = torch.zeros(num, num, dtype=torch.float64)
        for a in range(num):
            for b in range(num):
                others = [j for j in range(len(J)) if j != i]
                if torch.equal(x[a, others], x[b, others]):
                    weights = [float((t * (J @ t)).sum()) for t in (s[a], s[b])]
                    if a == b:
                        flipped = s[a].clone()
                        flipped[i] *= -1
                        weights[0] = float((flipped * (J @ flipped)).sum())
                    transition[a, b] = 1 / (1 + math.exp(weights[0] - weights[1]))
        p = p @ transition
    return p


def test_one_sweep_in_the_order_of_the_sites():
    x = gibbs_samples(CHAIN, 40_000, num_sweeps=1, rng=torch.Generator().manual_seed(0))
    observed = torch.bincount((x.long() * torch.tensor([4, 2, 1])).sum(1), minlength=8).numpy()
    right = after_one_sweep(CHAIN, [0, 1, 2]).numpy() * len(x)
    wrong = after_one_sweep(CHAIN, [2, 1, 0]).numpy() * len(x)
    assert scipy.stats.chisquare(observed, right).pvalue > 1e-3
    assert scipy.stats.chisquare(observed, wrong).pvalue < 1e-6


@pytest.mark.parametrize("sigma", [0.2, -0.1])
def test_long_chains_reach_the_exact_moments(sigma):
    num = 4000
    J = couplings(4, sigma)
    x = gibbs_samples(J, num, num_sweeps=80, rng=torch.Generator().manual_seed(1))
    truth = exact_moments(4, sigma)
    energy = sample_energy_per_site(x, J)
    assert abs(float((energy.mean() - truth.energy_per_site) / energy.std())) * math.sqrt(num) < 4
    correlation = sample_correlation(x, 4)
    z = (correlation.mean(0) - truth.correlation) / (correlation.std(0) / math.sqrt(num))
    z[0, 0] = 0
    assert float(z.abs().max()) < 4.5


def test_short_chains_are_biased_towards_disorder():
    num = 4000
    J = couplings(4, 0.2203)
    x = gibbs_samples(J, num, num_sweeps=1, rng=torch.Generator().manual_seed(2))
    energy = sample_energy_per_site(x, J)
    truth = exact_moments(4, 0.2203).energy_per_site
    assert float((energy.mean() - truth) / energy.std()) * math.sqrt(num) > 10


def test_the_start_is_a_fair_coin():
    x = gibbs_samples(couplings(4, 0.5), 4000, num_sweeps=0, rng=torch.Generator().manual_seed(3))
    assert float((x.mean(0) - 0.5).abs().max()) < 4.5 * 0.5 / math.sqrt(4000)
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_bad_couplings_are_refused():
    with pytest.raises(ValueError, match="symmetric"):
        gibbs_samples(torch.triu(torch.ones(3, 3), 1), 5, num_sweeps=1, rng=torch.Generator())
    with pytest.raises(ValueError, match="zero diagonal"):
        gibbs_samples(torch.eye(3), 5, num_sweeps=1, rng=torch.Generator())
