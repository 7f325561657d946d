"""Images of every source: sizes, splits, orientation, binarization; the real files where $GMBENCH_DATA has them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torch import Tensor

from building import rng
from gmbench import tasks
from gmbench.errors import UserError
from gmbench.tasks.images.dynamic_mnist import binarization
from gmbench.tasks.images.dynamic_mnist.binarization import binarize, binarize_once
from gmbench.tasks.images.dynamic_mnist.digits import check_digits8
from gmbench.tasks.images.dynamic_mnist.image_set import ImageSet
from gmbench.tasks.images.dynamic_mnist.omniglot import cell_means, drawings
from gmbench.tasks.images.dynamic_mnist.sources import SOURCES, load
from gmbench.tasks.images.dynamic_mnist.splits import shuffled, stratified, uniforms

FOLDER = Path(os.environ.get("GMBENCH_DATA") or "/nowhere")
SIZES = {
    "digits8": (1097, 200, 500),
    "mnist": (50_000, 10_000, 10_000),
    "mnist_static": (50_000, 10_000, 10_000),
    "caltech": (4100, 2264, 2307),
    "omniglot_small": (3388, 484, 968),
}
# SHA-256 of the held-out bits: a library that draws other random numbers would change the test set unnoticed.
HELD_OUT = {
    "digits8": "db6fc042c486844e",
    "mnist": "046f5fb96050c960",
    "mnist_static": "671e5c7b0a6d47c1",
    "caltech": "46f15799cf5a6f5c",
    "omniglot_small": "0f5c50099f25b429",
}


def real(name: str):  # type: ignore[no-untyped-def]
    """A mark that skips a test without the files of the images of that name."""
    there = all((FOLDER / path).is_file() for path in SOURCES[name][1])
    return pytest.mark.skipif(not there, reason=f"the files of {name} are not in the folder that $GMBENCH_DATA names")


ALL = [pytest.param(name, marks=real(name)) for name in SIZES]


def images(name: str) -> ImageSet:
    return load(name, lambda path: FOLDER / path)


def parts(of: ImageSet) -> list[Tensor]:
    return [of.train, of.validation, of.test]


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_values(name: str) -> None:
    of = images(name)
    dim = of.layout[0] * of.layout[1]
    assert [tuple(part.shape) for part in parts(of)] == [(size, dim) for size in SIZES[name]]
    assert all(part.dtype == torch.float32 and part.is_contiguous() for part in parts(of))
    for bits in (of.validation, of.test) if of.dynamic else parts(of):
        assert bool(((bits == 0) | (bits == 1)).all())
    assert of.dynamic == bool(((of.train > 0) & (of.train < 1)).any())
    assert float(of.train.min()) == 0 and float(of.train.max()) == 1
    ink = [float(part.mean()) for part in parts(of)]
    assert max(ink) - min(ink) < 0.05 * ink[0]  # the parts are alike


@pytest.mark.parametrize("name", ALL)
def test_classes(name: str) -> None:
    of = images(name)
    classes = [of.train_classes, of.validation_classes, of.test_classes]
    if name == "mnist_static":
        assert classes == [None, None, None] and of.num_classes == 0
        return
    for part, labels in zip(parts(of), classes, strict=True):
        assert labels is not None and labels.dtype == torch.int64 and len(labels) == len(part)
        assert set(labels.tolist()) == set(range(of.num_classes))
    assert of.num_classes == {"caltech": 101, "omniglot_small": 242}.get(name, 10)
    # classes belong to their images: nearest training means tell the class of far more test images than chance
    labels, held_out = classes[0], classes[2]
    assert labels is not None and held_out is not None
    means = torch.stack([of.train[labels == one].mean(0) for one in range(of.num_classes)])
    assert float((torch.cdist(of.test, means).argmin(1) == held_out).double().mean()) > min(0.3, 20 / of.num_classes)


@pytest.mark.parametrize("name", ALL)
def test_held_out_bits_are_fixed(name: str) -> None:
    of = images(name)
    digest = hashlib.sha256()
    for bits in (of.validation, of.test):
        digest.update(bits.to(torch.uint8).numpy().tobytes())
    assert digest.hexdigest()[:16] == HELD_OUT[name]


@pytest.mark.parametrize("name", ALL)
def test_the_first_test_images_are_a_fair_sample(name: str) -> None:
    """In file order they are not: 24 standard errors on mnist, and the static test file begins with its zeros."""
    ink = images(name).test.mean(1).double()
    half = len(ink) // 2
    error = float(ink.std()) * (2 / half) ** 0.5
    assert abs(float(ink[:half].mean() - ink[half:].mean())) < 3.5 * error


def test_digits8_are_scikit_learns_digits_and_each_is_in_one_part() -> None:
    levels, labels = load_digits(return_X_y=True)
    of = images("digits8")
    rows = {image.tobytes(): index for index, image in enumerate((levels / 16).astype(np.float32))}
    train = [rows[image.tobytes()] for image in of.train.numpy()]
    order = stratified("digits8", torch.from_numpy(labels))
    assert train == order[:1097].tolist() and len(set(order.tolist())) == 1797
    assert of.train_classes is not None and of.train_classes.tolist() == labels[train].tolist()
    for bits, classes, place in (
        (of.validation, of.validation_classes, order[1097:1297]),
        (of.test, of.test_classes, order[1297:]),
    ):
        means = torch.from_numpy(levels)[place] / 16
        assert classes is not None and classes.tolist() == labels[place].tolist()
        assert not bool(((bits == 1) & (means == 0)).any()) and not bool(((bits == 0) & (means == 1)).any())
        error = float((means * (1 - means)).sum().sqrt())
        assert abs(float(bits.double().sum() - means.sum())) < 4 * error
    assert of.test_classes is not None
    shares = torch.from_numpy(labels).bincount() * 500 / 1797
    assert float((of.test_classes.bincount() - shares).abs().max()) < 2


def test_other_digits_are_refused() -> None:
    levels, labels = load_digits(return_X_y=True)
    check_digits8(levels, labels)
    other, swapped = levels.copy(), labels.copy()
    other[7, 7] = 16 - other[7, 7]
    swapped[:2] = swapped[1::-1]
    for changed in ((other, labels), (levels, swapped), (levels[:1000], labels[:1000])):
        with pytest.raises(UserError, match="scikit-learn gives other images than this task's"):
            check_digits8(*changed)


def test_binarization_has_its_means_and_moves() -> None:
    means = torch.rand(40, 50, generator=rng())
    means[:, :5], means[:, 5:10] = 0, 1
    draws = torch.stack([binarize(means, rng(seed)) for seed in range(1, 401)])
    assert draws.dtype == torch.float32 and bool(((draws == 0) | (draws == 1)).all())
    assert bool((draws[:, :, :5] == 0).all()) and bool((draws[:, :, 5:10] == 1).all())
    error = (means * (1 - means) / 400).sqrt()[:, 10:]
    z = (draws.mean(0) - means)[:, 10:] / error
    assert float(z.square().mean()) == pytest.approx(1, abs=0.12)
    assert torch.equal(binarize(means, rng(1)), draws[0]) and not torch.equal(draws[0], draws[1])
    assert torch.equal(binarize_once(means, "a"), binarize_once(means, "a"))
    assert not torch.equal(binarize_once(means, "a"), binarize_once(means, "b"))


def card() -> dict[str, object]:
    for folder in tasks.__path__:
        path = Path(folder) / "images" / "dynamic_mnist" / "plugin.toml"
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))
    raise AssertionError("no card")


def test_the_card_agrees() -> None:
    found = card()
    assert found["version"] == binarization.VERSION
    listed: dict[str, set[str]] = {name: set() for name in SOURCES}
    for file in found["data"]:  # type: ignore[attr-defined]
        for variant in file["variants"]:
            listed[variant.removeprefix("data=")].add(file["path"])
    expected = {name: set(paths) for name, (_, paths) in SOURCES.items()}
    for name in ("mnist", "mnist_static"):  # which are told apart from images of another kind
        expected[name] |= expected["caltech"]
    assert listed == expected


def test_only_the_files_of_the_set_are_asked_for(tmp_path: Path) -> None:
    asked: list[str] = []

    def files(path: str) -> Path:
        asked.append(path)
        return tmp_path / path

    assert load("digits8", files) is load("digits8", files) and asked == []
    for name, (_, paths) in SOURCES.items():
        if paths:
            asked.clear()
            with pytest.raises(UserError, match="cannot be read"):
                load(name, files)
            assert asked == list(paths)
    with pytest.raises(UserError, match="no images 'mnits': did you mean 'mnist'"):
        load("mnits", files)


def test_fixed_orders() -> None:
    x = uniforms("a name", 2000)
    assert x[0].item() == int(hashlib.sha256(b"a name/0").hexdigest()[:16], 16) // 2**11 / 2**53
    assert float(x.min()) >= 0 and float(x.max()) < 1
    assert float(x.mean()) == pytest.approx(0.5, abs=0.03) and float(x.std()) == pytest.approx(12**-0.5, abs=0.02)
    assert sorted(shuffled("a name", 100).tolist()) == list(range(100))
    assert shuffled("a name", 100).tolist() != shuffled("another", 100).tolist()
    classes = torch.cat([torch.zeros(700), torch.ones(250), torch.full((50,), 2)]).long()
    order = stratified("a name", classes)
    assert sorted(order.tolist()) == list(range(1000))
    for begin, end in ((0, 100), (100, 350), (990, 1000)):
        found = classes[order[begin:end]].bincount(minlength=3)
        assert float((found - torch.tensor([0.7, 0.25, 0.05]) * (end - begin)).abs().max()) <= 2
    assert order[classes[order] == 0].tolist() != sorted(order[classes[order] == 0].tolist())


@real("mnist")
def test_mnist_against_its_files() -> None:
    of = images("mnist")
    raw = gzip.decompress((FOLDER / "mnist/train-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)
    assert np.array_equal(np.rint(of.train.numpy()[::100] * 255), pixels[:50_000:100])
    held_out = pixels[50_000 + shuffled("mnist/validation", 10_000).numpy()]
    bits = of.validation.numpy() == 1
    assert not (bits & (held_out == 0)).any() and not (~bits & (held_out == 255)).any()
    assert float(of.train.mean()) == pytest.approx(0.1309, abs=5e-4)
    assert of.train_classes is not None and of.train_classes[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert of.test_classes is not None
    assert of.test_classes.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@real("mnist_static")
def test_static_mnist_has_its_published_means() -> None:
    found = [float(part.double().mean()) for part in parts(images("mnist_static"))]
    assert found == pytest.approx([0.130562, 0.131127, 0.132512], abs=1e-6)


def spread(mean: Tensor, layout: tuple[int, int]) -> tuple[float, float, float]:
    """Standard deviations of the ink's row and column in a mean image, and the correlation of the two."""
    ink = (mean / mean.sum()).double().reshape(layout)
    row, column = torch.arange(layout[0]).double()[:, None], torch.arange(layout[1]).double()
    row, column = row - (ink * row).sum(), column - (ink * column).sum()
    down, across = float((ink * row**2).sum().sqrt()), float((ink * column**2).sum().sqrt())
    return down, across, float((ink * row * column).sum()) / (down * across)


@pytest.mark.parametrize("name", ALL[1:3])
def test_mnist_is_higher_than_wide_and_leans_to_the_right(name: str) -> None:
    of = images(name)
    for part in parts(of):
        down, across, slant = spread(part.mean(0), of.layout)
        assert down > 1.1 * across
        assert slant < -0.03  # the higher, the farther right


@real("caltech")
def test_silhouettes_stand_upright_in_ink_and_no_picture_is_in_two_parts() -> None:
    of = images("caltech")
    assert of.train_classes is not None and of.test_classes is not None
    corners = torch.cat(parts(of))[:, [0, 27, 756, 783]]
    assert float(corners.max()) == 0
    face = of.train[of.train_classes == 1].mean(0).reshape(28, 28)
    assert float((face - face.flip(1)).abs().mean()) < 0.3 * float((face - face.flip(0)).abs().mean())
    down, across, _ = spread(of.train[of.train_classes == 0].mean(0), of.layout)
    assert across > 1.3 * down  # airplanes from the side
    rows = [[row.tobytes() for row in part.numpy().astype(bool)] for part in parts(of)]
    distinct = [set(part) for part in rows]
    assert not (distinct[0] & distinct[1] or distinct[0] & distinct[2] or distinct[1] & distinct[2])
    assert [len(one) for one in distinct] == [4100 - 46, 2264, 2307]
    without_copies = [one for one in range(101) if one not in (32, 64, 74, 88)]
    shares = of.train_classes.bincount() * (2307 / 4100)
    assert float((of.test_classes.bincount() - shares)[without_copies].abs().max()) < 3


@real("omniglot_small")
def test_omniglot_against_another_reduction_of_the_same_files() -> None:
    path = FOLDER / "omniglot" / "omniglot_small_28x28_derived.npz"
    means, classes, drawers = drawings(*(FOLDER / one for one in SOURCES["omniglot_small"][1]))
    assert means.shape == (4840, 784)
    with np.load(path) as other:
        keys = zip(other["character_names"][other["character"]], other["drawer"], strict=True)
        place = {(str(name), int(drawer)): row for row, (name, drawer) in enumerate(keys)}
        names = sorted({name for name, _ in place})
        order = [place[names[one], drawer] for one, drawer in zip(classes.tolist(), drawers.tolist(), strict=True)]
        levels = torch.from_numpy(other["images"][order].reshape(4840, 784) / 255.0)
    assert float((means - levels).abs().max()) <= 1 / 255  # its 8 bits were rounded twice
    of = images("omniglot_small")
    for part, begin, end in ((of.train, 1, 14), (of.validation, 15, 16), (of.test, 17, 20)):
        rows = means[(drawers >= begin) & (drawers <= end)]
        assert len(rows) == len(part)
        which = {len(of.train): "train", len(of.validation): "validation"}.get(len(part), "test")
        rows = rows[shuffled(f"omniglot_small/{which}", len(rows))]
        expected = rows if which == "train" else binarize_once(rows, "omniglot_small", which)
        assert torch.equal(part, expected)


def test_cell_means_are_the_box_filter_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 2, (105, 105)).astype(np.uint8) * 255
    expected = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BOX)) / 255
    assert np.abs(cell_means(image[None] == 255, 28)[0] - expected).max() <= 1 / 255
    assert cell_means(np.ones((2, 105, 105), bool), 28) == pytest.approx(np.ones((2, 28, 28)))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def test_files_of_mnist_in_the_wrong_place(tmp_path: Path) -> None:
    labels = np.arange(60_000) % 10
    right = {
        "train-images-idx3": idx(np.zeros((60_000, 28, 28))),
        "train-labels-idx1": idx(labels),
        "t10k-images-idx3": idx(np.zeros((10_000, 28, 28))),
        "t10k-labels-idx1": idx(labels[:10_000]),
    }
    wrong = {
        "train-images-idx3": (right["t10k-images-idx3"], r"uint8 \(10000, 28, 28\) where uint8 \(60000, 28, 28\)"),
        "train-labels-idx1": (right["t10k-labels-idx1"], "no 60000 labels of 0 to 9"),
        "t10k-images-idx3": (idx(np.zeros((10_000, 28, 27))), r"\(10000, 28, 27\)"),
        "t10k-labels-idx1": (idx(labels[:10_000] + 1), "no 10000 labels of 0 to 9"),
    }
    for faulty, (content, message) in wrong.items():
        folder = tmp_path / faulty
        (folder / "mnist").mkdir(parents=True)
        for name in right:
            (folder / f"mnist/{name}-ubyte.gz").write_bytes(content if name == faulty else right[name])
        with pytest.raises(UserError, match=message) as caught:
            load("mnist", lambda path, folder=folder: folder / path)  # type: ignore[misc]
        assert f"{faulty}-ubyte.gz: " in str(caught.value)


def test_a_static_file_with_too_few_images(tmp_path: Path) -> None:
    path = tmp_path / "some.amat"
    path.write_bytes(b"0 " * 783 + b"1\n")
    with pytest.raises(UserError, match=r"some\.amat: 1 images where 50000 are expected"):
        load("mnist_static", lambda _: path)


def test_other_silhouettes(tmp_path: Path) -> None:
    X, Y = np.zeros((8671, 784), np.uint8), np.arange(8671) % 101 + 1
    X[:, 0] = 1
    faults: list[tuple[dict[str, np.ndarray], str]] = [
        ({"X": X[:4100], "Y": Y[:4100]}, "X is not 8671 rows of 784 bits"),
        ({"X": X * 2, "Y": Y}, "X is not 8671 rows of 784 bits"),
        ({"X": X, "Y": Y - 1}, "Y is not 8671 classes from 1 to 101"),
        ({"train_data": X, "Y": Y}, "no array 'X' in it"),
    ]
    for number, (arrays, message) in enumerate(faults):
        path = tmp_path / f"{number}.mat"
        savemat(path, arrays, do_compression=True)
        with pytest.raises(UserError, match=message) as caught:
            load("caltech", lambda _, path=path: path)  # type: ignore[misc]
        assert str(caught.value).startswith(str(path))


def drawn(path: Path, names: list[str], side: int = 105) -> Path:
    file = io.BytesIO()
    Image.new("1", (side, side), 1).save(file, format="PNG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"images_background_small1/{name}", file.getvalue())
    return path


@pytest.mark.parametrize(
    ("names", "side", "message"),
    [
        (["Greek/character01/0394_01.png"], 105, "1 drawings of 1 characters where 4840 of 242 are expected"),
        (["Greek/character01/0394_01.png"], 28, "is no ALPHABET/CHARACTER/ID_DRAWER.png of 105x105 pixels"),
        (["Greek/0394_01.png"], 105, "is no ALPHABET/CHARACTER/ID_DRAWER.png of 105x105 pixels"),
        ([f"A/{c:03}/0001_{d:02}.png" for c in range(242) for d in range(2, 22)], 105, "4840 drawings of 242"),
    ],
)
def test_other_drawings(tmp_path: Path, names: list[str], side: int, message: str) -> None:
    path = drawn(tmp_path / "some.zip", names, side)
    with pytest.raises(UserError, match=message) as caught:
        drawings(path)
    assert str(caught.value).startswith(f"{path}: ")
