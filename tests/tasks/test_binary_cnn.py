"""The judge of binary images: its weights, its accuracy on digits it has not seen, its features, and its training."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gmbench.errors import UserError
from gmbench.judge import Classifies, Judge, load_judge
from gmbench.metrics.frechet import frechet_distance
from gmbench.metrics.kernel_distance import kernel_distance
from gmbench.metrics.neighbours import neighbours
from gmbench.plugin import JudgeCard
from gmbench.registry import discover
from gmbench.tasks.images.dynamic_mnist.sources import ImageSet, binarize, load
from gmbench.tasks.images.judges.binary_cnn import train as training
from gmbench.tasks.images.judges.binary_cnn.network import BinaryCNN

NUM_CLASSES = {"digits8": 10, "mnist": 10, "caltech": 101, "omniglot_small": 242}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    def no_files(path: str) -> Path:
        raise AssertionError(path)

    return load("digits8", no_files)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge("binary_cnn", weights="digits8")


def drawn(images: ImageSet, rows: Tensor, seed: int = 0) -> Tensor:
    return binarize(images.train[rows], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_every_file_is_the_one_that_the_card_describes(name: str) -> None:
    plugin = discover().judge("binary_cnn")
    found = load_judge("binary_cnn", weights=name)
    assert isinstance(plugin.card, JudgeCard)
    weights = plugin.card.weights[name]
    digest = hashlib.sha256((plugin.folder / weights.file).read_bytes()).hexdigest()
    assert weights.sha256 == digest and found.key == f"binary_cnn@{digest[:12]}"
    assert isinstance(found, BinaryCNN) and found.num_classes == NUM_CLASSES[name]
    side = 8 if name == "digits8" else 28
    assert found.space.layout == (side, side) and found.num_features == (32 if side == 8 else 64)
    assert weights.command.endswith(f"binary_cnn.train --weights {name}") and name in training.RECIPES


def test_it_knows_digits_it_has_not_seen(judge: Judge, digits: ImageSet) -> None:
    assert isinstance(judge, Classifies) and digits.test_classes is not None
    right = (judge.logits(digits.test).argmax(1) == digits.test_classes).float().mean()
    assert float(right) > 0.9


def test_features_are_standardised_on_the_training_images(judge: Judge, digits: ImageSet) -> None:
    features = judge.features(drawn(digits, torch.arange(len(digits.train)).repeat(10)))
    sd = features.std(0)
    fires = sd > 0
    assert float(features.mean(0).abs().max()) < 0.05
    assert torch.allclose(sd[fires], torch.ones(int(fires.sum())), atol=0.1) and int(fires.sum()) >= 24


def test_features_are_what_they_were() -> None:
    """The key names the weights alone: the same weights must go on giving the same numbers."""
    x = torch.zeros(2, 784)
    x.view(2, 28, 28)[0, 6:22, 13:16] = 1  # an upright bar
    x.view(2, 28, 28)[1, 6:9, 8:20] = 1  # a high bar across
    found = load_judge("binary_cnn", weights="mnist")
    expected = torch.tensor([[2.2872, 0.0, 0.8701, -0.5670, 0.0, 0.1276], [-0.6018, 0.0, 1.6359, 0.3296, 0.0, 0.2265]])
    assert torch.allclose(found.features(x)[:, :6], expected, atol=1e-3)
    assert isinstance(found, Classifies) and found.logits(x).argmax(1).tolist() == [1, 7]


def test_the_number_of_images_does_not_matter(judge: Judge, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge.features(digits.test)
    monkeypatch.setattr("gmbench.tasks.images.judges.binary_cnn.network.BLOCK", 64)
    assert torch.allclose(judge.features(digits.test), whole, atol=1e-5)
    assert not whole.requires_grad


def test_it_refuses_what_are_no_images_of_its_size(judge: Judge) -> None:
    with pytest.raises(ValueError, match=r"images: shape \(3, 784\) where \(number, 64\) is expected"):
        judge.features(torch.zeros(3, 784))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        judge.features(torch.full((3, 64), 0.5))


def test_metrics_on_its_features_move(judge: Judge, digits: ImageSet) -> None:
    """Half of the classes lowers recall and coverage, flipped bits lower precision; the floor beats both."""
    assert digits.train_classes is not None
    rng = torch.Generator().manual_seed(1)
    real = judge.features(digits.test)
    every = torch.randperm(len(digits.train), generator=rng)[:500]
    half = (digits.train_classes < 5).nonzero()[:, 0][:500]
    noise = (torch.rand(500, 64, generator=rng) < 0.3).float()
    rows = {
        "floor": drawn(digits, every),
        "half": drawn(digits, half),
        "noisy": (drawn(digits, every) - noise).abs(),
    }
    features = {name: judge.features(x) for name, x in rows.items()}
    cover = {name: neighbours(one[: len(real)], real, k=5) for name, one in features.items()}
    assert cover["half"].recall.value < cover["floor"].recall.value - 0.1
    assert cover["half"].coverage.value < cover["floor"].coverage.value - 0.2
    assert cover["noisy"].precision.value < cover["floor"].precision.value - 0.1
    for distance in (frechet_distance, kernel_distance):
        floor, *others = (distance(one, real) for one in features.values())
        for other in others:
            assert other.value - floor.value > 3 * ((floor.stderr or 0) + (other.stderr or 0))


def test_a_file_that_was_tampered_with(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(discover().judge("binary_cnn").folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "weights" / "digits8.safetensors"
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"digits8\.safetensors is damaged: SHA-256") as caught:
        load_judge(str(folder), weights="digits8")
    assert "\n" not in str(caught.value)


def test_training_repeats_and_leaves_the_global_generator_alone(digits: ImageSet) -> None:
    assert digits.train_classes is not None
    few = dataclasses.replace(digits, train=digits.train[:200], train_classes=digits.train_classes[:200])
    recipe = training.Recipe(num_epochs=10, channels=(8, 16, 16), batch_size=20, learning_rate=0.005)
    state = torch.get_rng_state()
    networks = [training.train(few, recipe, "test") for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in networks[0].state_dict().items():
        assert torch.equal(tensor, networks[1].state_dict()[name]), name
    assert digits.validation_classes is not None
    assert training.accuracy(networks[0], digits.validation, digits.validation_classes) > 0.4  # of ten classes


def test_shifts_move_images_and_lose_what_goes_out() -> None:
    rng = torch.Generator().manual_seed(2)
    image = torch.zeros(200, 5, 4)
    image[:, 2, 1] = 1
    moved = training._shifted(image.flatten(1), (5, 4), 1, rng).unflatten(1, (5, 4))
    assert torch.equal(moved.sum((1, 2)), torch.ones(200))
    assert {(int(row), int(column)) for _, row, column in moved.nonzero()} == {
        (row, column) for row in (1, 2, 3) for column in (0, 1, 2)
    }
    corner = torch.zeros(200, 5, 4)
    corner[:, 0, 0] = 1
    assert 0 < float(training._shifted(corner.flatten(1), (5, 4), 1, rng).sum()) < 200
