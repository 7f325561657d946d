"""The deterministic bottleneck autoencoder on bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from gmbench.model import Data, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .. import bits
from ..best import Best
from ..codes import CodeDensity
from ..networks import NetworkConfig, build_decoder, build_encoder

VALIDATION_ROWS = 5000


class Coder(nn.Module):
    """The encoder and the decoder."""

    def __init__(self, config: NetworkConfig, space: BinaryVector) -> None:
        super().__init__()
        self.encoder = build_encoder(config, space, config.latent_dim)
        self.decoder = build_decoder(config, space)

    def loss(self, x: Tensor) -> Tensor:
        """Cross-entropy of bits x (B, D) given their own codes, averaged over the batch: a scalar, nats."""
        return -bits.log_prob(self.decoder(self.encoder(x)), x).mean()


class Autoencoder(Model):
    """x -> z = encoder(x) -> the log odds of x, trained on -log P(x | z), the cross-entropy of the bits.

    The code has fewer numbers than x has bits; nothing else keeps the network from learning the identity. It defines no
    distribution of z and so none of x: `sample` draws z from a Gaussian fitted afterwards to codes of training points,
    and then every bit. Every `validate_every` steps the validation loss decides whether the present weights become
    the model.

    Sources: G. E. Hinton, R. R. Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", 2006; the
    density of codes: `CodeDensity`.
    """

    class Config(NetworkConfig):
        num_steps: int = Field(ge=1)
        """Gradient steps."""
        batch_size: int = Field(ge=1)
        """Training points a step."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate of Adam; it falls to 0 along half a cosine."""
        validate_every: int = Field(ge=1)
        """Steps between looks at the validation loss."""
        num_codes: int = Field(ge=2)
        """Training points to whose codes the Gaussian is fitted."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.network = Coder(config, space)
        self.best = Best(self.network)
        self.density = CodeDensity(config.latent_dim)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.network.parameters(), c.learning_rate, fused=True)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(self.network.loss(x))
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                with torch.no_grad():
                    self.best.offer(self.network, self.network.loss(held_out.to(x.device)))

        return [
            Gradient("start", 1, 1000, {}, self._start),
            Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, training_step, schedule=cosine),
            Gradient("codes", 1, c.num_codes, {}, self._fit_density),
        ]

    @torch.no_grad()
    def _start(self, batch: Tensor, step: Step) -> None:
        self.network.decoder.bias.copy_(bits.log_odds(batch))

    def _fit_density(self, batch: Tensor, step: Step) -> None:
        self.density.fit(self.encode(batch))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, Z) of bits x (B, D)."""
        return bits.in_blocks(self.best.network.encoder, x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The probabilities (B, D) of ones given the codes of bits x (B, D)."""
        return bits.in_blocks(lambda rows: self.best.network.decoder(self.best.network.encoder(rows)).sigmoid(), x)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D): codes from the fitted Gaussian, then every bit."""
        draws = []
        for size in bits.block_sizes(num):
            draws.append(bits.draw(self.best.network.decoder(self.density.sample(size, rng)), rng))
        return torch.cat(draws)
