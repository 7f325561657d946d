"""The network of the gated PixelCNN: a vertical and a horizontal stack that together see all pixels before each one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad, relu


class GatedLayer(nn.Module):
    """One layer of both stacks; row i, column j of v sees only rows above i, of h also the columns before j.

    The vertical stack's k // 2 + 1 rows of kernel end at row i, and the horizontal stack's k // 2 + 1 columns at
    column j: what they look at has been shifted past (i, j) by the first layer, whose kernels end just before.

    Arguments:
        num_inputs: Channels of what comes in; 1 for the first layer, which takes the image.
        channels: Channels p of both stacks.
        kernel: Odd kernel size k: the vertical kernel is k columns wide.
        first: Whether this is the first layer: kernels end one row above and one column before, and h has no residual.
    """

    def __init__(self, num_inputs: int, channels: int, kernel: int, *, first: bool) -> None:
        super().__init__()
        self.first, self.reach = first, kernel // 2
        depth = self.reach + (not first)  # rows, and columns of the horizontal kernel
        self.vertical = nn.Conv2d(num_inputs, 2 * channels, (depth, kernel))
        self.horizontal = nn.Conv2d(num_inputs, 2 * channels, (1, depth), bias=False)
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)  # from the vertical stack to the horizontal one
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """v, h (B, C, H, W) of the layer below, or twice the image, to v, h (B, p, H, W)."""
        r = self.reach
        rows, columns = pad(v, (r, r, r, 0)), pad(h, (r, 0))
        if self.first:
            rows, columns = rows[:, :, :-1], columns[:, :, :, :-1]
        a = self.vertical(rows)  # (B, 2p, H, W)
        update = self.out(gate(self.across(a) + self.horizontal(columns)))
        return gate(a), update if self.first else h + update


class PixelNetwork(nn.Module):
    """log p(x) = sum_i log p(x_i | x_1 .. x_{i-1}) over the pixels in raster order.

    Pixel (i, j) sees exactly the pixels before it within `reach` rows and columns: the rectangle above, and the
    columns before it in its own row. There is no blind spot to the right.

    Arguments:
        shape: Height H and width W.
        channels: Channels p of both stacks, and of the 1 x 1 layer before the output.
        num_layers: Gated layers, at least 1.
        first_kernel: Odd kernel size of the first layer, at least 3.
        kernel: Odd kernel size of the others, at least 3.

    Source: A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves, K. Kavukcuoglu, "Conditional Image
    Generation with PixelCNN Decoders", 2016, arXiv 1606.05328.
    """

    def __init__(
        self, shape: tuple[int, int], channels: int, num_layers: int, *, first_kernel: int, kernel: int
    ) -> None:
        super().__init__()
        if min(first_kernel, kernel) < 3 or first_kernel % 2 == 0 or kernel % 2 == 0:
            raise ValueError(f"kernels are odd and at least 3, unlike {first_kernel} and {kernel}")
        self.shape, self.channels = shape, channels
        first = GatedLayer(1, channels, first_kernel, first=True)
        others = [GatedLayer(channels, channels, kernel, first=False) for _ in range(num_layers - 1)]
        self.layers = nn.ModuleList([first, *others])
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.last = nn.Conv2d(channels, 1, 1)

    @property
    def reach(self) -> int:
        """How many rows above, and columns to either side, a pixel sees."""
        return sum(layer.reach for layer in self.layers)

    def logits(self, x: Tensor) -> Tensor:
        """Log odds of x_i = 1 given the pixels before it, for every pixel i of x (B, D): (B, D)."""
        v = h = (2 * x - 1).reshape(-1, 1, *self.shape)  # 0 is what lies outside the image
        for layer in self.layers:
            v, h = layer(v, h)
        return self.last(relu(self.hidden(relu(h)))).flatten(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        return logsigmoid((2 * x - 1) * self.logits(x)).sum(1)


def gate(a: Tensor) -> Tensor:
    """The gated activation tanh(a_1) sigmoid(a_2) of the two halves of a's second axis: (B, 2p, ...) to (B, p, ...)."""
    signal, opening = a.chunk(2, 1)
    return torch.tanh(signal) * torch.sigmoid(opening)
