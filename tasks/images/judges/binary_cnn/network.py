"""A small convolutional classifier of binary images, whose last hidden layer gives features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gmbench.judge import Judge
from gmbench.spaces import BinaryVector

BLOCK = 1000  # images at once
FULL_RESOLUTION = 16  # larger images lose half of their resolution in the first convolution already


class BinaryCNN(Judge):
    """Three 3x3 convolutions with ReLU, the last two (of large images: all three) of stride 2; a hidden layer; classes.

    Features are the ReLU units of the hidden layer, standardised by their mean and standard deviation on the training
    images; a unit that never fires there is only shifted.

    Arguments:
        layout: (H, W) of the images.
        channels: Of the three convolutions.
        num_features: F, units of the hidden layer.
        num_classes: C.
    """

    space: BinaryVector

    def __init__(self, layout: Sequence[int], channels: Sequence[int], num_features: int, num_classes: int) -> None:
        super().__init__()
        height, width = layout
        self.space = BinaryVector(height * width, layout=(height, width))
        self.num_features, self.num_classes = num_features, num_classes
        strides = (1 if max(height, width) <= FULL_RESOLUTION else 2, 2, 2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, padding=1)
            for before, after, stride in zip((1, *channels[:-1]), channels, strides, strict=True)
        )
        for stride in strides:
            height, width = -(-height // stride), -(-width // stride)
        self.hidden = nn.Linear(channels[-1] * height * width, num_features)
        self.classes = nn.Linear(num_features, num_classes)
        self.layout: Tensor
        self.mean: Tensor
        self.sd: Tensor
        self.register_buffer("layout", torch.tensor(layout))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("sd", torch.ones(num_features))

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> Self:
        channels = [len(weights[f"convolutions.{depth}.weight"]) for depth in range(3)]
        with torch.device("meta"):  # layers of memory would initialise themselves from the global generator
            network = cls(
                weights["layout"].tolist(), channels, len(weights["hidden.weight"]), len(weights["classes.weight"])
            )
        network.load_state_dict(dict(weights), assign=True)
        return network

    def units(self, x: Tensor) -> Tensor:
        """The hidden layer of bits x (B, D), (B, F), not standardised."""
        maps = x.reshape(len(x), 1, *self.space.layout)
        for convolution in self.convolutions:
            maps = torch.relu(convolution(maps))
        return torch.relu(self.hidden(maps.flatten(1)))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Standardised features (B, F) of bits x (B, D)."""
        self.space.validate(x, "images")
        return torch.cat([(self.units(block) - self.mean) / self.sd for block in torch.split(x, BLOCK)])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, C) of the classes of bits x (B, D)."""
        self.space.validate(x, "images")
        return torch.cat([self.classes(self.units(block)) for block in torch.split(x, BLOCK)])
