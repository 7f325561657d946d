"""The image task: what each metric says of models whose quality is known, and what a record of it holds."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import rng
from gmbench.errors import MissingCapability, UserError
from gmbench.measuring import Measured, measure
from gmbench.model import Data
from gmbench.plan import Request, make_plan
from gmbench.plugin import TaskCard
from gmbench.registry import discover
from gmbench.runner import data_for, make_task
from gmbench.task import Task


@cache
def make(data: str) -> Task:
    plugin = discover().task("dynamic_mnist")
    assert isinstance(plugin.card, TaskCard)
    made: Task = plugin.load()(plugin.card, {"data": data}, "smoke")
    return made


@cache
def data_of(name: str) -> Data:
    return make(name).data(0)


class Pixels:
    """Independent pixels with the data's means, or with means of a half."""

    def __init__(self, data: Data, *, blind: bool = False) -> None:
        x = data.draw(4000, rng(3))
        self.p = torch.full((x.shape[1],), 0.5) if blind else x.mean(0).clamp(0.01, 0.99)

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        return torch.rand(num, len(self.p), generator=rng).lt(self.p).float()

    def energy(self, x: Tensor) -> Tensor:
        return -x @ torch.logit(self.p)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.p.expand_as(x)


class Copier:
    """Fresh draws of the training data, which it gives back as they are."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        return self.data.draw(num, rng)

    def reconstruct(self, x: Tensor) -> Tensor:
        return x


@cache
def measured(name: str, model: str) -> Measured:
    data = data_of(name)
    made = {
        "truth": lambda: data.truth,
        "pixels": lambda: Pixels(data),
        "blind": lambda: Pixels(data, blind=True),
        "copier": lambda: Copier(data),
    }[model]()
    return measure(make(name), made, 0)


def value(found: Measured, beginning: str) -> float:
    """The one estimate whose key begins so and is no floor."""
    others = (".floor", ".null_sd")
    [key] = [key for key in found.merged.estimates if key.startswith(beginning) and not key.endswith(others)]
    return found.merged.estimates[key].value


@pytest.mark.parametrize("name", ["exact4_bars", "exact4_rbm"])
def test_the_truth_has_no_excess_and_pixels_have_their_own(name: str) -> None:
    truth, pixels = measured(name, "truth"), measured(name, "pixels")
    assert truth.merged.headline == "nll.exact" and pixels.merged.headline == "nll.ebm.exact"
    assert value(truth, "excess_nats") == pytest.approx(0, abs=1e-9)
    entropy = truth.merged.estimates["nll.floor"].value
    nll = truth.merged.estimates["nll.exact"]
    assert nll.stderr is not None and abs(nll.value - entropy) < 4 * nll.stderr
    exact = data_of(name).truth
    p = Pixels(data_of(name)).p.double()
    log_p = exact.log_prob(x := exact.sample(20_000, rng=rng(9)))
    expected = float((log_p - (x * p.log() + (1 - x) * (1 - p).log()).sum(1)).mean())
    found = pixels.merged.estimates["excess_nats.ebm.exact"]
    assert found.stderr is not None and abs(found.value - expected) < 4 * found.stderr
    assert expected > 2
    assert value(truth, "mmd2") < value(pixels, "mmd2")
    for metric in ("features", "nn_ratio", "probe_accuracy", "ood_auc"):
        assert metric in pixels.unavailable


def test_test_points_belong_to_the_version_and_training_sets_to_the_seed() -> None:
    task = make("exact4_bars")
    assert torch.equal(task.data(0).validation, task.data(0).validation)
    assert not torch.equal(task.data(0).validation, task.data(1).validation)
    digits = make("digits8")
    assert torch.equal(digits.data(0).validation, digits.data(1).validation)


def test_digits_are_binarized_anew_in_every_batch() -> None:
    data = data_of("digits8")
    assert data.train is None and data.truth is None
    first, second = (data.draw(3000, rng(seed)) for seed in (0, 1))
    assert torch.equal(first, data.draw(3000, rng(0))) and not torch.equal(first, second)
    assert data.draw_labelled is not None
    x, classes = data.draw_labelled(3000, rng(0))
    assert torch.equal(x, first) and classes.unique().tolist() == list(range(10))
    # one image in two binarizations: its pixels differ where its grey is neither black nor white
    assert len(data.draw(20_000, rng(2)).unique(dim=0)) > 5000


def test_models_of_digits_are_told_apart_in_every_respect() -> None:
    pixels, blind, copier = (measured("digits8", name) for name in ("pixels", "blind", "copier"))
    assert pixels.merged.headline == "nll.annealed.raise50x1"
    per_point = pixels.merged.per_point
    assert per_point.shape == (100,)
    assert float(per_point.mean()) == pytest.approx(value(pixels, "nll.annealed.raise"), abs=1e-3)
    # few steps leave the annealed chain near its start, the data's means, which are better than fair coins
    assert value(pixels, "nll.annealed.raise") + 5 < value(blind, "nll.annealed.raise") < 64 * 0.6931 + 0.5
    assert value(blind, "nll.annealed.raise") - 0.5 < value(blind, "nll.ebm.ais") < 64 * 0.6931 + 0.5
    for better, worse in ((copier, pixels), (pixels, blind)):
        for key in ("fd_", "kd_", "mmd2"):
            assert value(better, key) < value(worse, key), key
        assert value(better, "coverage_") >= value(worse, "coverage_")
    assert value(copier, "precision_") > 0.9 and value(copier, "coverage_") > 0.9 > 0.8 > value(blind, "coverage_")
    floors = {key: one.value for key, one in copier.merged.estimates.items() if key.endswith(".floor")}
    assert value(copier, "fd_") < 4 * next(one for key, one in floors.items() if key.startswith("fd_"))
    memoriser = copier.merged.estimates["nn_ratio.memoriser"].value
    assert memoriser < 0.97 and abs(value(copier, "nn_ratio.n") - memoriser) < 0.06
    assert value(blind, "nn_ratio.n") > 1.5
    assert value(copier, "reconstruction.wrong") == 0 < value(pixels, "reconstruction.wrong")
    assert value(copier, "reconstruction.nats") < 0.01
    assert value(pixels, "probe_accuracy.n") == value(pixels, "probe_accuracy.pixels.n") > 0.7
    assert value(pixels, "ood_auc.bars") > 0.8 > 0.6 > value(pixels, "ood_auc.mirrored") > 0.3
    assert set(pixels.merged.pictures) == {"samples", "reconstructions"}
    assert "latents" in pixels.unavailable and "probe_accuracy" in copier.unavailable


def test_the_same_seed_measures_the_same() -> None:
    data = data_of("digits8")
    again = measure(make("digits8"), Pixels(data), 0)
    assert again.merged.estimates == measured("digits8", "pixels").merged.estimates
    assert again.merged.pictures == measured("digits8", "pixels").merged.pictures


def test_silhouettes_without_their_file_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GMBENCH_DATA", str(tmp_path))
    monkeypatch.setattr("gmbench.data.local.cache_folder", lambda: tmp_path / "cache")
    plugin = discover().task("dynamic_mnist")
    task = plugin.load()(plugin.card, {"data": "mnist_static"}, "smoke")
    with pytest.raises(UserError, match=r"binarized_mnist_train\.amat\.gz is missing.*GMBENCH_DATA"):
        task.data(0)


def test_a_model_without_a_likelihood_has_no_headline() -> None:
    with pytest.raises(MissingCapability):
        make("digits8").measure("nll", SimpleNamespace(sample=None), SimpleNamespace(rng=rng()))


@pytest.mark.parametrize(("variant", "model"), [("digits8", "dbn"), ("exact4_bars", "dbn"), ("exact4_bars", "truth")])
def test_a_run_hands_classes_to_models_and_the_truth_to_reference_rows(variant: str, model: str) -> None:
    plan = make_plan(Request("dynamic_mnist", model, f"data={variant}", "smoke"))
    data = data_for(plan, make_task(plan))
    assert (data.truth is not None) == (model == "truth")
    assert (data.draw_labelled is not None) == (variant == "digits8") == (data.num_classes == 10)
