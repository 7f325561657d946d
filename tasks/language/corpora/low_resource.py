"""Classes from few labels: how well they can be read off a text's frozen features, and off its words."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Generator, Tensor

from gmbench.estimate import Estimate
from gmbench.spaces import TokenSequence


def choose(classes: Tensor, per_class: int, num_draws: int, rng: Generator) -> list[Tensor]:
    """`num_draws` choices of `per_class` texts of every class, each (classes · per_class,), without replacement."""
    draws = []
    for _ in range(num_draws):
        order = torch.randperm(len(classes), generator=rng)
        draws.append(torch.cat([order[classes[order] == one][:per_class] for one in classes.unique()]))
    return draws


def accuracy(
    train: Any, classes: Tensor, test: Any, test_classes: Tensor, draws: list[Tensor], *, standardised: bool = True
) -> Estimate:
    """Test accuracy of multinomial logistic regression, averaged over choices of labelled texts.

    Its standard error is that over the choices and over the test texts together.

    Arguments:
        train: Features (N, F) of which each draw takes some rows, an array or sparse, with their classes, (N,).
        test: Features (M, F), with their classes, (M,).
        draws: Rows of `train`, as by `choose`.
        standardised: Whether features are brought to mean 0 and variance 1, as of the labelled texts.
    """
    right = np.stack([
        _predicted(train[rows.numpy()], classes[rows].numpy(), test, standardised) == test_classes.numpy()
        for rows in draws
    ]).astype(float)  # (draws, M)  # fmt: skip
    between = right.mean(1).var(ddof=1) / len(right) if len(right) > 1 else 0.0
    points = right.mean(0).var(ddof=1) / right.shape[1]
    return Estimate(value=right.mean(), stderr=float(between + points) ** 0.5, n=right.shape[1])


def majority(classes: Tensor, test_classes: Tensor) -> Estimate:
    """The test accuracy of always saying the commonest class of all training texts."""
    right = (test_classes == classes.mode().values).double()
    return Estimate(value=float(right.mean()), stderr=float(right.std()) / len(right) ** 0.5, n=len(right))


def bags_of_words(x: Tensor, vocab_size: int) -> csr_array:
    """Which words each text of x (N, T) has, (N, V) of zeros and ones."""
    row, column = ((x != TokenSequence.PAD) & (x != TokenSequence.EOS)).nonzero(as_tuple=True)
    pairs = torch.stack([row, x[row, column]]).unique(dim=1).numpy()
    return csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(x), vocab_size))


def _predicted(train: Any, classes: NDArray[np.int64], test: Any, standardised: bool) -> NDArray[np.int64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [StandardScaler()] if standardised else []
    probe = make_pipeline(*steps, LogisticRegression(C=0.1 if standardised else 1.0, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train, classes)
    found: NDArray[np.int64] = probe.predict(test)
    return found
