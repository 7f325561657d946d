"""The true distribution of the codes: floors, tables, and agreement with sampled codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gmbench.tasks.discrete.synthetic2d.code_distribution import CodeDistribution, entropy_floor
from gmbench.tasks.discrete.synthetic2d.densities import NAMES
from gmbench.tasks.discrete.synthetic2d.gray import code_index

FLOOR = {
    "2spirals": 20.037,
    "8gaussians": 19.977,
    "circles": 20.553,
    "moons": 19.718,
    "pinwheel": 19.546,
    "swissroll": 20.141,
    "checkerboard": 20.677,
}


@pytest.mark.parametrize("name", NAMES)
def test_floor(name: str) -> None:
    assert entropy_floor(name) == pytest.approx(FLOOR[name], abs=0.0025)


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("name", NAMES)
def test_floor_is_the_mean_of_minus_log_prob_of_sampled_codes(name: str, bits: int) -> None:
    truth = CodeDistribution.of(name, bits)
    values = -truth.log_prob(truth.sample(6_000, rng=torch.Generator().manual_seed(8)))
    error = float(values.mean()) - truth.entropy
    # The checkerboard's 32-bit floor leaves out the cells on its edges, worth 1e-4.
    assert abs(error) < 4 * float(values.std()) / math.sqrt(len(values)) + 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_table_is_the_frequency_of_sampled_codes(name: str) -> None:
    truth = CodeDistribution.of(name, 16)
    probabilities = truth.log_table.exp().numpy()
    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    num = 1_000_000
    observed = np.bincount(code_index(truth.sample(num, rng=torch.Generator().manual_seed(9))), minlength=1 << 16)
    large = probabilities * num >= 10
    assert probabilities[large].sum() > 0.95
    expected = np.append(probabilities[large], probabilities[~large].sum()) * num
    observed = np.append(observed[large], observed[~large].sum())
    if expected[-1] < 1:
        assert observed[-1] <= 10
        expected, observed = expected[:-1], observed[:-1]
    p = stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1)
    assert p > 1e-3


@pytest.mark.parametrize("name", [n for n in NAMES if n != "checkerboard"])
def test_table_is_finite_and_near_the_midpoint_rule(name: str) -> None:
    truth = CodeDistribution.of(name, 16)
    assert truth.log_table.isfinite().all()
    x = truth.sample(500, rng=torch.Generator().manual_seed(10))
    midpoint = truth.density.log_cell_mass(truth.code.decode(x), truth.code.side)
    assert 0 < float((truth.log_prob(x) - midpoint).abs().mean()) < 0.05


def test_true_codes_of_the_checkerboard_are_possible() -> None:
    truth = CodeDistribution.of("checkerboard")
    edge = torch.tensor([[4 - 1e-9, 2 + 1e-9], [2 - 1e-9, 1.0]], dtype=torch.float64)
    log_prob = truth.log_prob(truth.code.encode(edge))
    whole = -math.log(32) - 2 * math.log(truth.code.int_scale)
    assert log_prob.isfinite().all() and (log_prob < whole - 0.1).all()
    assert truth.log_prob(truth.sample(100_000, rng=torch.Generator().manual_seed(11))).isfinite().all()


def test_no_table_of_32_bits() -> None:
    with pytest.raises(ValueError, match="too large"):
        _ = CodeDistribution.of("moons", 32).log_table
