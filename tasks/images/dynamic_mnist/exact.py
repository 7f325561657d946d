"""Two distributions over 4x4 images whose every probability is known: noisy bars and stripes, and a small machine."""

from __future__ import annotations

import itertools
import math
from functools import cache

import torch
from torch import Generator, Tensor

from gmbench.metrics.harmonium import exact_log_partition, log_density
from gmbench.model import Harmonium, Likelihood
from gmbench.randomness import stream
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector

SIDE = 4
SPACE = BinaryVector(SIDE * SIDE, layout=(SIDE, SIDE))


class ExactImages:
    """A distribution over all 65 536 images of 4x4 bits, held as a table.

    Arguments:
        log_table: The normalised log-probabilities of `all_states(16)` in nats, (65536,) float64.
    """

    likelihood = Likelihood()

    def __init__(self, log_table: Tensor) -> None:
        self.log_table = log_table
        self.entropy = float(torch.special.entr(log_table.exp()).sum())
        """Nats an image: no model has a smaller expected negative log-likelihood."""
        self._cumulative = log_table.exp().cumsum(0)

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent images (num, 16) float32, on the generator's device."""
        cumulative = self._cumulative.to(rng.device)
        u = torch.rand(num, dtype=torch.float64, generator=rng, device=rng.device) * cumulative[-1]
        index = torch.searchsorted(cumulative, u, right=True)
        return (index[:, None] >> _shifts(rng.device) & 1).float()

    def log_prob(self, x: Tensor, *, rng: Generator | None = None) -> Tensor:
        """log p(x) in nats of images x (B, 16), (B,) float64, exact; `rng` is not used."""
        SPACE.validate(x)
        return self.log_table.to(x.device)[state_index(x)]


class NoisyBars(ExactImages):
    """One of the 30 images of full rows or full columns, all equally likely, with every pixel flipped with chance .02.

    16 choices of rows and 16 of columns share the empty and the full image.

    References:
        Information Theory, Inference, and Learning Algorithms, D. J. C. MacKay, 2003, chapter 43 (bars and stripes).
    """

    FLIP = 0.02

    def __init__(self) -> None:
        self.patterns = bars_and_stripes()  # (30, 16) float64
        x = all_states(SPACE.dim)
        distance = x.sum(1, keepdim=True) + self.patterns.sum(1) - 2 * x @ self.patterns.T  # (65536, 30), Hamming
        log_p = distance * math.log(self.FLIP) + (SPACE.dim - distance) * math.log1p(-self.FLIP)
        super().__init__(log_p.logsumexp(1) - math.log(len(self.patterns)))


class SmallHarmonium(ExactImages):
    """A restricted Boltzmann machine of 16 pixels and 8 hidden bits with strong random weights.

    Its 10 modes lie far apart (entropy 6.9 nats, while independent pixels of the same means have 10.3): a Gibbs chain
    that changes one pixel at a time seldom passes between them. Weights have a standard deviation of 2 and biases of .3
    around the values at which an image and its negative are equally likely, rounded to 2 digits, so that no processor's
    last bit enters the definition.
    """

    def __init__(self) -> None:
        rng = stream("dynamic_mnist/exact4_rbm", 7)
        W = _rounded(2 * torch.randn(SPACE.dim, 8, dtype=torch.float64, generator=rng))
        b = _rounded(0.3 * torch.randn(SPACE.dim, dtype=torch.float64, generator=rng) - W.sum(1) / 2)
        c = _rounded(0.3 * torch.randn(8, dtype=torch.float64, generator=rng) - W.sum(0) / 2)
        self._harmonium = Harmonium(W, b, c)
        super().__init__(log_density(self._harmonium, all_states(SPACE.dim)) - exact_log_partition(self._harmonium))

    def harmonium(self) -> Harmonium:
        """The machine, in float64."""
        return self._harmonium


@cache
def bars_and_stripes() -> Tensor:
    """The distinct 4x4 images of which every row, or every column, is all ink or none: (30, 16) float64."""
    lines = itertools.product((0.0, 1.0), repeat=SIDE)
    stripes = torch.tensor(list(lines), dtype=torch.float64)[:, :, None].expand(-1, -1, SIDE)  # (16, 4, 4)
    return torch.cat([stripes, stripes.mT]).reshape(-1, SPACE.dim).unique(dim=0)


def _rounded(x: Tensor) -> Tensor:
    return x.round(decimals=2)


def _shifts(device: torch.device) -> Tensor:
    """The place of each pixel in the number of an image, as `all_states` has it."""
    return torch.arange(SPACE.dim - 1, -1, -1, device=device)
