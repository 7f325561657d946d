"""Generation that computes every activation of the PixelCNN once: the vertical stack row by row, h pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, relu

from .network import GatedLayer, PixelNetwork, gate

Choose = Callable[[int, Tensor], Tensor]
"""`choose(i, logits)`: bits (B,) for pixel i of B images, given the log odds (B,) that they are 1."""


@torch.no_grad()
def generate(network: PixelNetwork, num: int, choose: Choose) -> Tensor:
    """`num` images (num, D), pixel after pixel in raster order, each as `choose` says.

    All rows of v that row i needs lie above i, so v is computed for the whole row at once from the cached last rows of
    the layer below, and so is all that h takes from it. Column j of h needs its own row up to j only, which is cached
    too: a pixel costs a few small matrix products. Altogether the arithmetic is that of one pass over the images.
    """
    height, width = network.shape
    parameter = network.last.weight
    rows = VerticalRows(network, num)
    pixels = HorizontalPixels(network, num)
    x = parameter.new_zeros(height, width, num)
    for i in range(height):
        pixels.begin(rows.next(x[i - 1] if i else None))
        for j in range(width):
            x[i, j] = choose(i * width + j, pixels.logits(j))
            pixels.set(j, x[i, j])
    return x.flatten(0, 1).T.contiguous()


class VerticalRows:
    """The vertical stack of `num` images, one row at a time."""

    def __init__(self, network: PixelNetwork, num: int) -> None:
        self.layers: list[GatedLayer] = list(network.layers)
        width, like = network.shape[1], network.last.weight
        # the last rows of every layer's input, as many as its kernel has, with the margins left and right
        self.inputs = [
            like.new_zeros(num, layer.vertical.in_channels, layer.vertical.kernel_size[0], width + 2 * layer.reach)
            for layer in self.layers
        ]

    def next(self, above: Tensor | None) -> list[Tensor]:
        """What every layer of h takes from v in the next row, (W, 2p, num) each.

        Arguments:
            above: The bits (W, num) of the row before, None for the first row.
        """
        row = None if above is None else (2 * above - 1).T[:, None, :]  # (num, 1, W)
        across = []
        for layer, cached in zip(self.layers, self.inputs, strict=True):
            if row is not None:
                cached[:, :, :-1] = cached[:, :, 1:].clone()
                cached[:, :, -1] = pad(row, (layer.reach, layer.reach))
            a = conv2d(cached, layer.vertical.weight, layer.vertical.bias)  # (num, 2p, 1, W)
            across.append(conv2d(a, layer.across.weight, layer.across.bias)[:, :, 0].permute(2, 1, 0).contiguous())
            row = gate(a)[:, :, 0]
        return across


class HorizontalPixels:
    """The horizontal stack of one row of `num` images, one pixel at a time; images are the last axis throughout."""

    def __init__(self, network: PixelNetwork, num: int) -> None:
        self.layers: list[GatedLayer] = list(network.layers)
        width, like = network.shape[1], network.last.weight
        # every layer's input in this row, with the margin to the left: (W + r, C, num)
        self.inputs = [
            like.new_zeros(width + layer.reach, layer.horizontal.in_channels, num) for layer in self.layers
        ]
        # kernels (2p, C, 1, depth) as matrices (2p, depth * C)
        self.weights = [layer.horizontal.weight[:, :, 0].transpose(1, 2).flatten(1) for layer in self.layers]
        self.outs = [(layer.out.weight[:, :, 0, 0], layer.out.bias[:, None]) for layer in self.layers]
        self.hidden = (network.hidden.weight[:, :, 0, 0], network.hidden.bias[:, None])
        self.last = (network.last.weight[:, :, 0, 0], network.last.bias[:, None])

    def begin(self, across: list[Tensor]) -> None:
        """Starts a row with what the vertical stack says of it, (W, 2p, num) for every layer."""
        self.across = across

    def logits(self, j: int) -> Tensor:
        """Log odds (num,) of column j, once the columns before it are set."""
        h = self.inputs[0][:0]
        for index, (layer, seen, weight) in enumerate(zip(self.layers, self.inputs, self.weights, strict=True)):
            if not layer.first:
                seen[j + layer.reach] = h
            depth = layer.horizontal.kernel_size[1]
            a = torch.addmm(self.across[index][j], weight, seen[j : j + depth].flatten(0, 1))  # (2p, num)
            signal, opening = a.chunk(2)
            out_weight, out_bias = self.outs[index]
            h_new = torch.addmm(out_bias, out_weight, torch.tanh(signal) * torch.sigmoid(opening))
            h = h_new if layer.first else h.add(h_new)
        weight, bias = self.hidden
        h = relu(torch.addmm(bias, weight, relu(h)))
        weight, bias = self.last
        return torch.addmm(bias, weight, h)[0]

    def set(self, j: int, bits: Tensor) -> None:
        """Sets column j of the row to `bits` (num,)."""
        self.inputs[0][j + self.layers[0].reach, 0] = 2 * bits - 1
