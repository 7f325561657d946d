"""The acceptance rules: values, detailed balance, and the frequency of what is drawn."""

from __future__ import annotations

import math

import pytest
import torch

from gmbench.samplers.metropolis import accept, acceptance_probability

LOG_RATIO = torch.tensor([-torch.inf, -2.0, 0.0, 0.7, torch.inf], dtype=torch.float64)


def test_probabilities() -> None:
    assert acceptance_probability(LOG_RATIO).tolist() == pytest.approx([0, math.exp(-2), 1, 1, 1])
    barker = acceptance_probability(LOG_RATIO, "barker").tolist()
    assert barker == pytest.approx([0, 1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-0.7)), 1])
    with pytest.raises(ValueError, match="metropolis, barker"):
        acceptance_probability(LOG_RATIO, "glauber")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["metropolis", "barker"])
def test_both_rules_balance(rule: str) -> None:
    r = torch.linspace(-5, 5, 41, dtype=torch.float64)
    there, back = acceptance_probability(r, rule), acceptance_probability(-r, rule)  # type: ignore[arg-type]
    torch.testing.assert_close(there, r.exp() * back)


@pytest.mark.parametrize("rule", ["metropolis", "barker"])
def test_draws_have_the_stated_frequency(rule: str) -> None:
    num = 40_000
    rng = torch.Generator().manual_seed(0)
    yes = accept(LOG_RATIO.repeat(num), rule, rng=rng).reshape(num, -1)  # type: ignore[arg-type]
    p = acceptance_probability(LOG_RATIO, rule)  # type: ignore[arg-type]
    error = (p * (1 - p) / num).sqrt()
    assert yes.dtype == torch.bool
    assert ((yes.double().mean(0) - p).abs() <= 4 * error).all()
    assert not yes[:, 0].any() and yes[:, 4].all()


def test_nan_is_rejected() -> None:
    assert not accept(torch.full((100,), torch.nan), rng=torch.Generator().manual_seed(0)).any()
