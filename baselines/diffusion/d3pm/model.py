"""D3PM on bits: discrete diffusion by masking or by uniform noise, with the variational bound as its likelihood."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.randomness import stream
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .denoiser import Denoiser
from .processes import Absorbing, Process, Uniform

VALIDATION_ROWS = 1000
ROWS = 2048  # points of one pass outside training


class D3PM(Model):
    """p(x_0) = sum over x_1 .. x_T of p(x_T) prod_t p(x_{t-1} | x_t), the learned reverse of a fixed corruption.

    The network predicts x_0 from x_t, and p(x_{t-1} | x_t) follows from it. Trained on the variational bound, one time
    a point and the times of a batch spread evenly over 1 .. T; every `validate_every` steps the bound on validation
    data, always on the same noise, decides whether the present weights become the model (the last step is always a
    candidate).

    `log_prob` is an unbiased estimate of the bound from `num_terms` network passes a point: 1 .. T is cut into so many
    runs of times, and one of each is drawn.

    Source: J. Austin, D. D. Johnson, J. Ho, D. Tarlow, R. van den Berg, "Structured Denoising Diffusion Models in
    Discrete State-Spaces", 2021, arXiv 2107.03006.

    Raises:
        UserError: The bound is to be estimated from more terms than there are steps.
    """

    class Config(BaseConfig):
        transition: Literal["absorbing", "uniform"]
        """What a step does to a bit: masks it for good, or draws it anew."""
        num_diffusion_steps: Annotated[int, Field(ge=1)]
        """Steps T of the diffusion, which are also the network passes of a sample."""
        num_terms: Annotated[int, Field(ge=1)]
        """Network passes for the likelihood bound of a point, at most T; T computes every term."""
        hidden: Annotated[int, Field(ge=1)]
        """Width of the network's residual stream."""
        num_blocks: Annotated[int, Field(ge=1)]
        """Residual blocks of the network."""
        dropout: Annotated[float, Field(ge=0, lt=1)]
        """Probability with which a hidden unit is dropped in training."""
        num_steps: Annotated[int, Field(ge=1)]
        """Gradient steps."""
        batch_size: Annotated[int, Field(ge=1)]
        """Training points a step."""
        learning_rate: Annotated[float, Field(gt=0)]
        """Initial learning rate of Adam; it falls to 0 along half a cosine."""
        clip: Annotated[float, Field(gt=0)]
        """Largest norm of the gradient."""
        validate_every: Annotated[int, Field(ge=1)]
        """Steps between looks at the validation bound."""

    likelihood: Likelihood = Likelihood(estimator="elbo", kind="lower_bound")

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        T = config.num_diffusion_steps
        if config.num_terms > T:
            raise UserError(f"num_terms={config.num_terms} of a bound that has {T}: at most num_diffusion_steps")
        self.likelihood = Likelihood(estimator=f"elbo{config.num_terms}", kind="lower_bound")
        self.process: Process = Absorbing(T) if config.transition == "absorbing" else Uniform(T)
        num_inputs = self.process.num_inputs * space.dim
        self.network = Denoiser(num_inputs, space.dim, config.hidden, config.num_blocks, config.dropout)
        self.best = copy.deepcopy(self.network).requires_grad_(False)
        self.best_bound: Tensor
        self.register_buffer("best_bound", torch.tensor(-torch.inf, dtype=torch.float64))

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.network.parameters(), c.learning_rate)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            T = c.num_diffusion_steps
            u = torch.rand(1, generator=step.rng, device=step.rng.device).to(x.device)
            spread = (torch.arange(len(x), device=x.device) + u) / len(x)  # in [0, 1), each part of it once
            t = 1 + (spread * T).long().clamp(max=T - 1)
            step.minimize(T * self.terms(self.network, x, t, rng=step.rng).mean(), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        return [Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, training_step, schedule=cosine)]

    def terms(self, network: Denoiser, x: Tensor, t: Tensor, *, rng: Generator) -> Tensor:
        """The bound's terms (B,) of points x (B, D) at their times t (B,), each at a draw of x_t; in nats."""
        start = 2 * x - 1
        s = self.process.corrupt(start, t, rng)
        logits = network(self.process.inputs(s), t / self.config.num_diffusion_steps)
        return self.process.terms(logits, s, start, t)

    @torch.no_grad()
    def bound(self, network: Denoiser, x: Tensor, *, rng: Generator) -> Tensor:
        """An unbiased estimate (B,) of the bound on log p(x) in nats of x (B, D), float64."""
        c = self.config
        edges = torch.linspace(0, c.num_diffusion_steps, c.num_terms + 1, dtype=torch.float64).round().long().tolist()
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for low, high in itertools.pairwise(edges):
            t = torch.randint(low + 1, high + 1, (len(x),), generator=rng, device=rng.device).to(x.device)
            total -= (high - low) * self.terms(network, x, t, rng=rng)
        return total

    def _validate(self, x: Tensor) -> None:
        self.network.eval()
        bound = self.bound(self.network, x, rng=stream("d3pm/validation", device=x.device)).mean()
        self.network.train()
        if bound > self.best_bound:
            self.best_bound.copy_(bound)
            self.best.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """An unbiased estimate of the variational bound on log p(x), in nats, of x (B, D): (B,)."""
        self.best.eval()
        return torch.cat([self.bound(self.best, rows, rng=rng) for rows in x.split(ROWS)]).float()

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D) by the reverse chain, T network passes each."""
        self.best.eval()
        sizes = [ROWS] * (num // ROWS) + [num % ROWS] * (num % ROWS > 0)
        return torch.cat([self._draw(size, rng) for size in sizes])

    def _draw(self, num: int, rng: Generator) -> Tensor:
        T, like = self.config.num_diffusion_steps, self.best.last.weight  # (D, hidden)
        s = self.process.begin(num, len(like), like, rng)
        for t in range(T, 0, -1):
            logits = self.best(self.process.inputs(s), like.new_tensor([t / T]))
            s = self.process.back(logits, s, t, rng)
        return (s + 1) / 2
