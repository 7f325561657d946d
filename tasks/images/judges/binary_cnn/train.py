"""Makes the weights: `python -m gmbench.tasks.images.judges.binary_cnn.train --weights digits8`.

One CPU thread, so that the same libraries on the same kind of processor give the same file.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, pad

from gmbench.data.local import fetch
from gmbench.plugin import TaskCard
from gmbench.randomness import derive_seed, stream
from gmbench.registry import discover

from ...dynamic_mnist.sources import ImageSet, binarize, load
from .network import BinaryCNN

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Arguments:
        num_epochs: Passes over the training images, which are binarized anew in each where they are grey.
        channels: Of the three convolutions.
        num_features: Units of the hidden layer.
        batch_size: Images in an update.
        learning_rate: The highest of a cycle: it rises over three tenths of the updates and falls along a cosine.
        max_shift: Images are moved by up to this many pixels along each axis.
        weight_decay: Of AdamW.
    """

    num_epochs: int
    channels: tuple[int, int, int] = (16, 32, 32)
    num_features: int = 64
    batch_size: int = 64
    learning_rate: float = 2e-3
    max_shift: int = 0
    weight_decay: float = 0.0


# Chosen by validation accuracy: eight settings on digits8, six on caltech and on omniglot_small, one on mnist.
RECIPES = {
    "digits8": Recipe(num_epochs=300, channels=(16, 32, 64), num_features=32),
    "mnist": Recipe(num_epochs=8),
    "caltech": Recipe(num_epochs=60, max_shift=2, weight_decay=0.05),
    "omniglot_small": Recipe(num_epochs=80, learning_rate=4e-3, max_shift=3, weight_decay=0.1),
}


def train(images: ImageSet, recipe: Recipe, name: str) -> BinaryCNN:
    """The network after AdamW on the cross-entropy in one cycle of the learning rate, its features standardised.

    Arguments:
        images: Have classes.
        name: What its random streams derive from.
    """
    assert images.train_classes is not None
    with torch.random.fork_rng(devices=[]):  # layers initialise themselves from the global generator
        torch.manual_seed(derive_seed("binary_cnn/init", name))
        network = BinaryCNN(images.layout, recipe.channels, recipe.num_features, images.num_classes)
    rng = stream("binary_cnn/train", name)
    num = len(images.train)
    steps = recipe.num_epochs * -(-num // recipe.batch_size)
    adam = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, recipe.learning_rate, total_steps=steps, cycle_momentum=False)
    for _ in range(recipe.num_epochs):
        for rows in torch.split(torch.randperm(num, generator=rng), recipe.batch_size):
            x = _shifted(_draw(images, rows, rng), images.layout, recipe.max_shift, rng)
            loss = cross_entropy(network.classes(network.units(x)), images.train_classes[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    _standardise(network, images, rng)
    return network.eval()


@torch.no_grad()
def _standardise(network: BinaryCNN, images: ImageSet, rng: Generator) -> None:
    rows = torch.arange(len(images.train)).repeat(max(1, 50_000 // len(images.train)) if images.dynamic else 1)
    units = torch.cat([network.units(_draw(images, block, rng)) for block in torch.split(rows, 1000)]).double()
    sd = units.std(0)
    network.mean.copy_(units.mean(0))
    network.sd.copy_(torch.where(sd > 0, sd, 1.0))


def _draw(images: ImageSet, rows: Tensor, rng: Generator) -> Tensor:
    x = images.train[rows]
    return binarize(x, rng) if images.dynamic else x


def _shifted(x: Tensor, layout: tuple[int, int], most: int, rng: Generator) -> Tensor:
    """Every image (B, D) moved by its own offset; what comes in is empty."""
    if not most:
        return x
    height, width = layout
    padded = pad(x.reshape(-1, height, width), (most, most, most, most))
    down, right = torch.randint(2 * most + 1, (2, len(x), 1, 1), generator=rng)
    rows = down + torch.arange(height)[:, None]
    columns = right + torch.arange(width)
    return padded[torch.arange(len(x))[:, None, None], rows, columns].flatten(1)


def accuracy(network: BinaryCNN, x: Tensor, classes: Tensor) -> float:
    """Share of images (N, D) whose class (N,) is the likeliest one."""
    return float(torch.eq(network.logits(x).argmax(1), classes).double().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, prints accuracies, writes the file and prints what the card says of it."""
    parser = argparse.ArgumentParser(description="Trains the judge binary_cnn on the labelled images of dynamic_mnist.")
    parser.add_argument("--weights", required=True, choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the file")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    name, card = chosen.weights, discover().task("dynamic_mnist").card
    assert isinstance(card, TaskCard)
    files = {file.path: file for file in card.data}
    images = load(name, lambda path: fetch(files[path]))
    network = train(images, RECIPES[name], name)
    bits = _draw(images, torch.arange(len(images.train)), stream("binary_cnn/accuracy", name))
    for part, x, classes in (
        ("train", bits, images.train_classes),
        ("validation", images.validation, images.validation_classes),
        ("test", images.test, images.test_classes),
    ):
        assert classes is not None
        print(f"accuracy on {part} images: {accuracy(network, x, classes):.4f}")
    print(f"features that never fire: {int((network.features(bits).std(0) == 0).sum())} of {network.num_features}")
    content = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{name}.safetensors"
    path.write_bytes(content)
    print(f"{path}: {len(content)} bytes\nsha256 = {hashlib.sha256(content).hexdigest()!r}".replace("'", '"'))


if __name__ == "__main__":
    main()
