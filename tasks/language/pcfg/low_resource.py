"""How well classes can be read off features with few labels: logistic regression, averaged over choices of labels."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate


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
    """Test accuracy of a multinomial logistic regression (C = 0.1) on standardised features, with `per_class` labels.

    Its standard error is that over the choices of labels and over the test points together.

    Arguments:
        train: Features (N, F) from which labels are chosen, at least `per_class` of each class, int64 (N,).
        test: Features (M, F) with their classes, int64 (M,).

    Raises:
        ValueError: A class has fewer points.
    """
    least = int(classes.bincount().min())
    if least < per_class:
        raise ValueError(f"{per_class} labels of each class are asked for, and one class has {least}")
    rows = []
    for _ in range(num_draws):
        order = torch.randperm(len(classes), generator=rng)
        chosen = torch.cat([order[classes[order] == one][:per_class] for one in classes.unique()])
        rows.append(_right(train[chosen], classes[chosen], test, test_classes))
    right = np.stack(rows)  # (num_draws, M)
    between = float(right.mean(1).var(ddof=1)) / num_draws if num_draws > 1 else 0.0
    points = float(right.mean(0).var(ddof=1)) / right.shape[1]
    return Estimate(value=float(right.mean()), stderr=(between + points) ** 0.5, n=right.shape[1])


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
