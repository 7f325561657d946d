"""Linear probes: how well classes can be read off features, with many labels and with few."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate


def probe_accuracy(train: Tensor, classes: Tensor, test: Tensor, test_classes: Tensor) -> Estimate:
    """Test accuracy of multinomial logistic regression on standardised features.

    Arguments:
        train: Features (N, F) with their classes, int64 (N,).
        test: Features (M, F) with their classes, int64 (M,).
    """
    right = _right(train, classes, test, test_classes)
    return Estimate(value=right.mean(), stderr=right.std(ddof=1) / len(right) ** 0.5, n=len(right))


def few_label_accuracy(
    train: Tensor,
    classes: Tensor,
    test: Tensor,
    test_classes: Tensor,
    *,
    per_class: int,
    num_draws: int,
    rng: Generator,
) -> Estimate:
    """The same with `per_class` labels a class, averaged over `num_draws` choices of them.

    Its standard error is that over the choices and over the test points together.
    """
    draws = []
    for _ in range(num_draws):
        order = torch.randperm(len(classes), generator=rng)
        chosen = torch.cat([order[classes[order] == one][:per_class] for one in classes.unique()])
        draws.append(_right(train[chosen], classes[chosen], test, test_classes))
    right = np.stack(draws)  # (num_draws, M)
    between = right.mean(1).var(ddof=1) / num_draws if num_draws > 1 else 0.0
    points = right.mean(0).var(ddof=1) / right.shape[1]
    return Estimate(value=right.mean(), stderr=float(between + points) ** 0.5, n=right.shape[1])


def _right(train: Tensor, classes: Tensor, test: Tensor, test_classes: Tensor) -> np.ndarray:
    """1 where a test point's class is found, else 0, (M,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train.double().numpy(), classes.numpy())
    return (probe.predict(test.double().numpy()) == test_classes.numpy()).astype(float)
