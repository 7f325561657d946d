"""The gated PixelCNN: an autoregressive convolutional model of binary images with exact likelihood."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .network import PixelNetwork
from .sampling import generate

VALIDATION_ROWS = 2000  # checkpoints share the points: enough to see .05 nats between them
PASS_FLOATS = 2**22  # activations of one layer in one pass outside training: 16 MB
SAMPLE_ROWS = 256  # images drawn together; more of them gained no speed on one thread


class PixelCNN(Model):
    """Gated PixelCNN over the pixels of a layout (H, W) in raster order; unconditional, for bits.

    Trained by maximum likelihood; every `validate_every` steps the validation likelihood decides whether the present
    weights become the model (the last step is always a candidate).

    Source: A. van den Oord, N. Kalchbrenner, O. Vinyals, L. Espeholt, A. Graves, K. Kavukcuoglu, "Conditional Image
    Generation with PixelCNN Decoders", 2016, arXiv 1606.05328.

    Raises:
        UserError: The space's layout has more than two axes.
    """

    class Config(BaseConfig):
        channels: Annotated[int, Field(ge=1)]
        """Channels p of each stack."""
        num_layers: Annotated[int, Field(ge=1)]
        """Gated layers."""
        first_kernel: Annotated[int, Field(ge=3)]
        """Kernel size of the first layer, odd."""
        kernel: Annotated[int, Field(ge=3)]
        """Kernel size of the other layers, odd."""
        num_steps: Annotated[int, Field(ge=1)]
        """Gradient steps."""
        batch_size: Annotated[int, Field(ge=1)]
        """Training points a step."""
        learning_rate: Annotated[float, Field(gt=0)]
        """Initial learning rate of Adam; it falls to 0 along half a cosine."""
        clip: Annotated[float, Field(gt=0)]
        """Largest norm of the gradient."""
        validate_every: Annotated[int, Field(ge=1)]
        """Steps between looks at the validation likelihood."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.dim = space.dim
        if min(config.first_kernel % 2, config.kernel % 2) == 0:
            raise UserError(f"kernel sizes are odd, unlike {config.first_kernel} and {config.kernel}")
        self.network = PixelNetwork(
            image_shape(space),
            config.channels,
            config.num_layers,
            first_kernel=config.first_kernel,
            kernel=config.kernel,
        )
        self.best = copy.deepcopy(self.network).requires_grad_(False)
        self.best_nll: Tensor
        self.register_buffer("best_nll", torch.tensor(torch.inf, dtype=torch.float64))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.network.parameters(), c.learning_rate, fused=True)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(-self.network.log_prob(x).mean(), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        return [Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, training_step, schedule=cosine)]

    @torch.no_grad()
    def _validate(self, x: Tensor) -> None:
        nll = -torch.cat([self.network.log_prob(rows) for rows in x.split(self._rows)]).double().mean()
        if nll < self.best_nll:
            self.best_nll.copy_(nll)
            self.best.load_state_dict(self.network.state_dict())

    @property
    def _rows(self) -> int:
        floats: int = 2 * self.config.channels * self.dim
        return max(1, PASS_FLOATS // floats)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        return torch.cat([self.best.log_prob(rows) for rows in x.split(self._rows)])

    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D), for about the arithmetic of scoring as many."""
        sizes = [SAMPLE_ROWS] * (num // SAMPLE_ROWS) + [num % SAMPLE_ROWS] * (num % SAMPLE_ROWS > 0)
        return torch.cat([self._draw(size, rng) for size in sizes])

    def _draw(self, num: int, rng: Generator) -> Tensor:
        u = torch.rand(self.dim, num, generator=rng, device=rng.device).to(self.device)
        thresholds = torch.logit(u)
        return generate(self.best, num, lambda i, logits: (logits > thresholds[i]).to(logits.dtype))


def image_shape(space: BinaryVector) -> tuple[int, int]:
    """Height and width of the space's layout; bits without a layout are one row.

    Raises:
        UserError: The layout has more than two axes.
    """
    if len(space.layout) > 2:
        raise UserError(f"convolutions need a layout (height, width), and the space has {space.layout}")
    height, width = (1, *(space.layout or (space.dim,)))[-2:]
    return height, width
