"""Generative latent optimization on bits: a decoder and one free code for every training point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding

from gmbench.model import Data, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .. import bits
from ..codes import CodeDensity
from ..networks import NetworkConfig, build_decoder


def to_unit_ball(z: Tensor) -> Tensor:
    """Codes z (B, Z) outside the unit ball are moved to the nearest point of it."""
    return z / z.norm(dim=1, keepdim=True).clamp(min=1)


class GLO(Model):
    """min over the decoder and codes z_n in the unit ball of -sum_n log P(x_n | z_n), one code for each training point.

    There is no encoder: codes are parameters, moved by gradient steps and projected back to the ball. A new point is
    encoded in the same way with the decoder held fixed, in `encode_steps` steps from the codes' mean. New codes
    come from a Gaussian fitted to the training codes.

    Departures from the paper: bits have a Bernoulli likelihood (cross-entropy), for which neither the squared nor
    the Laplacian pyramid loss is meant; Adam moves codes and decoder, instead of SGD; the learning rates fall.

    Source: P. Bojanowski, A. Joulin, D. Lopez-Paz, A. Szlam, "Optimizing the Latent Space of Generative Networks",
    2018, arXiv 1707.05776.
    """

    class Config(NetworkConfig):
        num_codes: int = Field(ge=2)
        """Training points N that have a code: the first N of a fixed set in random order (again from the start where it
        has fewer), or N draws where draws are unlimited."""
        num_steps: int = Field(ge=1)
        """Gradient steps, each on the decoder and on the batch's codes."""
        batch_size: int = Field(ge=1)
        """Codes a step."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate of the decoder's Adam; both rates fall to 0 along half a cosine."""
        code_learning_rate: float = Field(gt=0)
        """Initial learning rate of the codes' Adam, which moves only the rows of the batch; also of new codes."""
        encode_steps: int = Field(ge=1)
        """Gradient steps by which a new point's code is found."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.decoder = build_decoder(config, space)
        start = torch.randn(config.num_codes, config.latent_dim) / config.latent_dim**0.5
        self.codes = nn.Parameter(to_unit_ball(start))
        self.density = CodeDensity(config.latent_dim)
        self.points: Tensor
        # bytes, since a checkpoint of 50 000 points of 784 bits would else hold 157 MB of them
        self.register_buffer("points", torch.zeros(config.num_codes, space.dim, dtype=torch.uint8))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.decoder.parameters(), c.learning_rate, fused=True)
        codes_adam = torch.optim.SparseAdam([self.codes], c.code_learning_rate)

        def finite_set(num: int, rng: Generator) -> Tensor:
            if data.train is None:
                return data.draw(num, rng)
            return data.train[torch.randperm(len(data.train), generator=rng)[torch.arange(num) % len(data.train)]]

        def rows(num: int, rng: Generator) -> Tensor:
            return torch.randint(c.num_codes, (num,), generator=rng)

        def training_step(index: Tensor, step: Step) -> None:
            codes_adam.zero_grad()
            z = embedding(index, self.codes, sparse=True)
            step.minimize(-bits.log_prob(self.decoder(z), self.points[index].float()).mean(), "decoder")
            step.update("codes")
            with torch.no_grad():
                self.codes[index] = to_unit_ball(self.codes[index])

        optimizers = {"decoder": adam, "codes": codes_adam}
        return [
            Gradient("points", 1, c.num_codes, {}, self._take_points, finite_set),
            Gradient("fit", c.num_steps, c.batch_size, optimizers, training_step, rows, cosine),
            Gradient("codes", 1, 0, {}, lambda batch, step: self.density.fit(self.codes)),
        ]

    @torch.no_grad()
    def _take_points(self, batch: Tensor, step: Step) -> None:
        self.points.copy_(batch)
        self.decoder.bias.copy_(bits.log_odds(batch))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, Z) that reconstruct bits x (B, D), each found by itself."""
        return bits.in_blocks(self._optimised_codes, x)

    @torch.enable_grad()
    def _optimised_codes(self, x: Tensor) -> Tensor:
        z = to_unit_ball(self.density.mean[None]).repeat(len(x), 1).requires_grad_()
        adam = torch.optim.Adam([z], self.config.code_learning_rate)
        for _ in range(self.config.encode_steps):
            # not backward(), which would leave gradients at the decoder
            (z.grad,) = torch.autograd.grad(-bits.log_prob(self.decoder(z), x).sum(), z)
            adam.step()
            with torch.no_grad():
                z.copy_(to_unit_ball(z))
        return z.detach()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The probabilities (B, D) of ones given the codes found for bits x (B, D)."""
        return bits.in_blocks(lambda rows: self.decoder(self._optimised_codes(rows)).sigmoid(), x)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D): codes from the fitted Gaussian, moved into the ball, then every bit."""
        draws = []
        for size in bits.block_sizes(num):
            z = to_unit_ball(self.density.sample(size, rng))
            draws.append(bits.draw(self.decoder(z), rng))
        return torch.cat(draws)
