"""MADE: an autoregressive model of binary vectors with exact likelihood."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from gmbench.errors import UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .network import MaskedNetwork

VALIDATION_ROWS = 5000  # enough to see .01 nats between checkpoints, which share the points
ROWS = 8192  # rows of one pass outside training


class MADE(Model):
    """Masked autoencoder for distribution estimation, with one fixed order and one set of masks.

    Trained by maximum likelihood; every `validate_every` steps the validation likelihood decides whether the present
    weights become the model (the last step is always a candidate).

    Source: M. Germain, K. Gregor, I. Murray, H. Larochelle, "MADE: Masked Autoencoder for Distribution Estimation",
    2015, arXiv 1502.03509.
    """

    class Config(BaseConfig):
        hidden: Annotated[int, Field(ge=1)]
        """Units of every hidden layer."""
        num_layers: Annotated[int, Field(ge=1)]
        """Number of hidden layers."""
        direct: bool
        """Whether every output also sees the bits before it directly."""
        order: Literal["natural", "interleaved"]
        """Order of the bits: as they come, or one bit of each coordinate in turn (of the layout's outermost axis)."""
        dropout: Annotated[float, Field(ge=0, lt=1)]
        """Probability with which a hidden unit is dropped in training."""
        num_steps: Annotated[int, Field(ge=1)]
        """Gradient steps."""
        batch_size: Annotated[int, Field(ge=1)]
        """Training points a step."""
        learning_rate: Annotated[float, Field(gt=0)]
        """Initial learning rate of AdamW; it falls to 0 along half a cosine."""
        prior: Annotated[float, Field(ge=0)]
        """AdamW's weight decay is prior / N for N training rows, and none for unlimited draws."""
        validate_every: Annotated[int, Field(ge=1)]
        """Steps between looks at the validation likelihood."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        order = bit_order(config.order, space)
        self.network = MaskedNetwork(
            space.dim,
            config.hidden,
            config.num_layers,
            order,
            direct=config.direct,
            dropout=config.dropout,
        )
        self.best = copy.deepcopy(self.network).requires_grad_(False)
        self.best_nll: Tensor
        self.register_buffer("best_nll", torch.tensor(torch.inf, dtype=torch.float64))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        # with very few rows a step would shrink weights past zero: at most a tenth of them is taken
        decay = 0.0 if data.train is None else min(c.prior / len(data.train), 0.1 / c.learning_rate)
        optimizer = torch.optim.AdamW(self.network.parameters(), c.learning_rate, weight_decay=decay)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(-self.network.log_prob(x).mean())
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        return [Gradient("fit", c.num_steps, c.batch_size, {"main": optimizer}, training_step, schedule=cosine)]

    @torch.no_grad()
    def _validate(self, x: Tensor) -> None:
        self.network.eval()
        nll = -torch.cat([self.network.log_prob(rows) for rows in x.split(ROWS)]).double().mean()
        self.network.train()
        if nll < self.best_nll:
            self.best_nll.copy_(nll)
            self.best.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        self.best.eval()
        return torch.cat([self.best.log_prob(rows) for rows in x.split(ROWS)])

    def sample(self, num: int, *, given: None = None, rng: torch.Generator) -> Tensor:
        """`num` independent draws (num, D)."""
        sizes = [ROWS] * (num // ROWS) + [num % ROWS] * (num % ROWS > 0)
        return torch.cat([self.best.sample(size, rng=rng) for size in sizes])


def bit_order(name: str, space: BinaryVector) -> Tensor:
    """The bits in the order of generation, (D,) int64.

    Arguments:
        name: `natural`, or `interleaved`: the first bit of each coordinate, then the second of each, and so on. Where
            bits are written from the most significant down, that refines a cell of the plane step by step.
        space: For `interleaved` its layout must have two axes: coordinates, then the bits of one.
    """
    if name == "natural":
        return torch.arange(space.dim)
    if len(space.layout) != 2:
        raise UserError(f"the interleaved order needs a layout (coordinates, bits), and the space has {space.layout}")
    return torch.arange(space.dim).reshape(space.layout).T.flatten()
