"""The area under the ROC curve against scikit-learn, and the coverage of its standard error."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from gmbench.metrics.auc import auc


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ties", [False, True])
def test_agrees_with_scikit_learn(ties: bool) -> None:
    inside, outside = torch.randn(60, generator=rng(0)) + 0.7, torch.randn(90, generator=rng(1))
    if ties:
        inside, outside = inside.round(), outside.round()
    labels = torch.cat([torch.ones(60), torch.zeros(90)])
    expected = roc_auc_score(labels.numpy(), torch.cat([inside, outside]).numpy())
    assert auc(inside, outside).value == pytest.approx(expected, abs=1e-12)
    assert auc(outside, inside).value == pytest.approx(1 - expected, abs=1e-12)


def test_the_standard_error_covers() -> None:
    truth, hits = 0.760249938906524, 0  # Phi(1 / sqrt 2): two unit normals whose means differ by 1
    for seed in range(300):
        found = auc(torch.randn(80, generator=rng(2 * seed)) + 1, torch.randn(120, generator=rng(2 * seed + 1)))
        assert found.stderr is not None
        hits += abs(found.value - truth) < 1.96 * found.stderr
    assert 0.90 < hits / 300 < 0.985


def test_separated_equal_and_impossible_scores() -> None:
    low, high = torch.arange(5.0), torch.arange(5.0) + 10
    assert auc(high, low).value == 1 and auc(low, high).value == 0
    assert auc(low, low).value == 0.5
    assert auc(high, torch.full((3,), -torch.inf)).value == 1
    with pytest.raises(ValueError, match="at least 2"):
        auc(high[:1], low)
    with pytest.raises(ValueError, match="outside"):
        auc(high, torch.tensor([0.0, torch.nan]))
