"""The fits of MADE, PixelCNN and the RBM on images beside the plainest torch loops of the same networks (-m benchmark).

The target is a `speed_ratio` of at least .98. The plain loops draw from the global generator, have torch's default Adam
(MADE: AdamW) with a constant rate, and keep no best weights; the harness looks at validation data once, at one point.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from gmbench.baselines.autoregressive.made.model import MADE
from gmbench.baselines.autoregressive.pixelcnn.model import PixelCNN
from gmbench.baselines.energy.rbm.model import RBM
from gmbench.model import Data
from gmbench.plugin import ModelCard, read_manifest
from gmbench.spaces import BinaryVector

BASELINES = Path(__file__).parents[2] / "baselines"
MODELS: dict[str, tuple[Any, str]] = {
    "made": (MADE, "autoregressive/made"),
    "pixelcnn": (PixelCNN, "autoregressive/pixelcnn"),
    "rbm": (RBM, "energy/rbm"),
}
# of small and of large images: some seconds each, so that what a fit does once is little of it
NUM_STEPS = {"made": (600, 100), "pixelcnn": (100, 25), "rbm": (400, 60)}


def plain_autoregressive(model: Any, data: Data, num_steps: int) -> None:
    rng, network = Generator().manual_seed(0), model.network
    optimizer_class = torch.optim.AdamW if isinstance(model, MADE) else torch.optim.Adam
    optimizer = optimizer_class(network.parameters(), model.config.learning_rate, weight_decay=0.0)
    network.train()
    for _ in range(num_steps):
        x = data.draw(model.config.batch_size, rng)
        loss = binary_cross_entropy_with_logits(network.logits(x), x, reduction="sum") / len(x)
        optimizer.zero_grad()
        if not loss.isfinite():
            raise FloatingPointError
        loss.backward()
        if clip := getattr(model.config, "clip", 0.0):
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()


def plain_persistent(model: RBM, data: Data, num_steps: int) -> None:
    """Persistent contrastive divergence as one would write it first."""
    c, rng = model.config, Generator().manual_seed(0)
    W, b, h_bias = model.weight, model.visible_bias, model.hidden_bias
    optimizer = torch.optim.Adam(model.parameters(), c.learning_rate)
    chains = torch.bernoulli(torch.full((c.num_chains, len(b)), 0.5))

    def free_energy(x: Tensor) -> Tensor:
        return -(x @ b) - softplus(x @ W + h_bias).sum(1)

    for _ in range(num_steps):
        x = data.draw(c.batch_size, rng)
        with torch.no_grad():
            for _ in range(c.sampling_steps):
                h = torch.bernoulli(torch.sigmoid(chains @ W + h_bias))
                chains = torch.bernoulli(torch.sigmoid(h @ W.T + b))
        loss = free_energy(x).mean() - free_energy(chains).mean()
        optimizer.zero_grad()
        if not loss.isfinite():
            raise FloatingPointError
        loss.backward()
        optimizer.step()


@pytest.mark.benchmark
@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("name", MODELS)
def test_image_model_step(side_by_side: Callable[..., None], name: str, side: int) -> None:
    model_class, folder = MODELS[name]
    card, num_steps = read_manifest(BASELINES / folder), NUM_STEPS[name][side == 28]
    assert isinstance(card, ModelCard)
    config = card.resolve("dynamic_mnist", "small" if side == 8 else "medium") | {"num_steps": num_steps}
    if "validate_every" in config:
        config["validate_every"] = num_steps
    train = (torch.rand(2000, side * side, generator=Generator().manual_seed(0)) < 0.2).float()

    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    space = BinaryVector(side * side, (side, side))
    data = Data(space, None, draw, train[:1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(model_class.Config(**config), space)
    plain = plain_persistent if name == "rbm" else plain_autoregressive
    network = model if name == "rbm" else model.network
    side_by_side(model, network, data, lambda: plain(model, data, num_steps), num_steps)
