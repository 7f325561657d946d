"""Samples against test images in the features of a trained network, with what real images score at the same number."""

from __future__ import annotations

from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.judge import Judge
from gmbench.metrics.frechet import frechet_distance
from gmbench.metrics.kernel_distance import kernel_distance
from gmbench.metrics.neighbours import neighbours


def feature_distances(judge: Judge, x: Tensor, train: Tensor, test: Tensor, *, k: int) -> dict[str, Estimate]:
    """Frechet and kernel distance, precision, recall, density and coverage of x (N, D), and their floors.

    A floor is what N training images score in place of the samples: what a perfect model, or a memoriser, would get.

    Arguments:
        judge: Gives standardised features; its key goes into the keys of the metrics.
        train: Training images (M, D); the first N are taken.
        test: Test images, (T, D); the first N are compared with.
        k: Which neighbour a ball reaches to.
    """
    num = len(x)
    real = judge.features(test[:num])
    found = {}
    for suffix, points in (("", x), (".floor", train[:num])):
        features = judge.features(points)
        cover = neighbours(features, real, k=k)
        found |= {
            f"fd_{judge.key}.n{num}{suffix}": frechet_distance(features, real),
            f"kd_{judge.key}.n{num}{suffix}": kernel_distance(features, real),
        } | {
            f"{name}_{judge.key}.k{k}.n{num}{suffix}": estimate for name, estimate in cover._asdict().items()
        }  # fmt: skip
    return found
