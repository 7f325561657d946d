"""Encoders from bits and decoders to the log odds of bits: multilayer perceptrons and convolutional networks."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gmbench.errors import UserError
from gmbench.model import Config
from gmbench.spaces import BinaryVector

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class NetworkConfig(Config):
    """The shape of an encoder and of the decoder that mirrors it."""

    architecture: Literal["mlp", "conv"]
    """Dense layers, or convolutions over the two axes of the space's layout with one dense layer."""
    latent_dim: int = Field(ge=1)
    """Numbers Z in a code."""
    hidden: int = Field(ge=1)
    """Units of every dense hidden layer."""
    num_layers: int = Field(ge=1)
    """Dense hidden layers of an `mlp`; convolutions of a `conv`, each of which halves both axes."""
    channels: int = Field(ge=1)
    """Channels of the first convolution; each further one doubles them. Unused by `mlp`."""
    activation: Literal["tanh", "relu"]
    """Non-linearity of the hidden layers."""


class DenseDecoder(nn.Sequential):
    """Linear layers from codes (B, Z) to the log odds of bits (B, D)."""

    @property
    def bias(self) -> Tensor:
        """The log odds' constant term, (D,)."""
        bias: Tensor = self[-1].bias
        return bias


class ConvDecoder(nn.Module):
    """Log odds of bits (B, D) by convolutions, with a bias of its own for every bit.

    Arguments:
        body: From codes (B, Z) to (B, D), without a bias in the last layer.
        dim: Bits D.
    """

    def __init__(self, body: nn.Module, dim: int) -> None:
        super().__init__()
        self.body = body
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        return torch.add(self.body(z), self.bias)


def build_encoder(config: NetworkConfig, space: BinaryVector, num_outputs: int) -> nn.Module:
    """A network from bits (B, D) to (B, num_outputs)."""
    c = config
    if c.architecture == "mlp":
        return nn.Sequential(*dense([space.dim, *[c.hidden] * c.num_layers, num_outputs], c.activation))
    sizes, channels = _sizes(space, c.num_layers), _channels(c)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, *sizes[0]))]
    for num_in, num_out in itertools.pairwise([1, *channels]):
        layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), ACTIVATIONS[c.activation]()]
    flat = channels[-1] * math.prod(sizes[-1])
    return nn.Sequential(*layers, nn.Flatten(), *dense([flat, c.hidden, num_outputs], c.activation))


def build_decoder(config: NetworkConfig, space: BinaryVector) -> DenseDecoder | ConvDecoder:
    """A network from codes (B, Z) to the log odds of bits (B, D), the mirror image of the encoder.

    Its `bias` (D,) is one number a bit, so that it can start at the log odds of the data's means.
    """
    c = config
    if c.architecture == "mlp":
        return DenseDecoder(*dense([c.latent_dim, *[c.hidden] * c.num_layers, space.dim], c.activation))
    sizes, channels = _sizes(space, c.num_layers)[::-1], _channels(c)[::-1]
    flat = channels[0] * math.prod(sizes[0])
    layers: list[nn.Module] = [*dense([c.latent_dim, c.hidden, flat], c.activation), ACTIVATIONS[c.activation]()]
    layers.append(nn.Unflatten(1, (channels[0], *sizes[0])))
    for i, (num_in, num_out) in enumerate(itertools.pairwise([*channels, 1])):
        # an axis of n came from one of 2n - 1 or 2n
        extra = tuple(large - (2 * small - 1) for small, large in zip(sizes[i], sizes[i + 1], strict=True))
        last = i == len(channels) - 1
        layers.append(nn.ConvTranspose2d(num_in, num_out, 3, stride=2, padding=1, output_padding=extra, bias=not last))
        layers.append(nn.Flatten() if last else ACTIVATIONS[c.activation]())
    return ConvDecoder(nn.Sequential(*layers), space.dim)


def dense(sizes: list[int], activation: str) -> list[nn.Module]:
    """Linear layers of these sizes with the non-linearity between them; weights start as Glorot and Bengio (2010)."""
    layers: list[nn.Module] = []
    for num_in, num_out in itertools.pairwise(sizes):
        linear = nn.Linear(num_in, num_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, ACTIVATIONS[activation]()]
    return layers[:-1]


def _channels(config: NetworkConfig) -> list[int]:
    return [config.channels << i for i in range(config.num_layers)]


def _sizes(space: BinaryVector, num_layers: int) -> list[tuple[int, int]]:
    """(rows, columns) before and after each convolution; a space without a layout is a single row."""
    layout = space.layout if len(space.layout) > 1 else (1, space.dim)
    if len(layout) != 2:
        raise UserError(f"convolutions need a layout of two axes, and the space has {space.layout}: choose mlp")
    sizes = [(layout[0], layout[1])]
    for _ in range(num_layers):
        rows, columns = sizes[-1]
        sizes.append(((rows + 1) // 2, (columns + 1) // 2))
    return sizes
