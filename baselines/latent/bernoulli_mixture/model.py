"""A mixture of products of Bernoullis, fitted by expectation maximisation, with exact likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage

from .em import ROWS, Mixture, Penalty, em_step, start


class BernoulliMixture(Model):
    """p(x) = sum_k pi_k prod_i mu_ki^x_i (1 - mu_ki)^(1 - x_i): one latent class, bits independent given it.

    EM climbs the likelihood plus the log-density of a Beta prior on every mu_ki and a Dirichlet prior on pi. For each
    candidate of the Beta's pseudo-count EM runs from the same start until it gains less than `tolerance`; the candidate
    with the best validation likelihood becomes the model.

    Source: C. M. Bishop, "Pattern Recognition and Machine Learning", 2006, section 9.3.3.
    """

    class Config(BaseConfig):
        num_components: Annotated[int, Field(ge=1)]
        """Components K."""
        smoothing: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
        """Candidates for the pseudo-count of each value of each bit in each component; validation picks one."""
        weight_smoothing: Annotated[float, Field(ge=0)]
        """Pseudo-count of points in each component."""
        max_iterations: Annotated[int, Field(ge=1)]
        """Steps of EM at most, for each candidate."""
        tolerance: Annotated[float, Field(ge=0)]
        """EM ends when a step gains less than this many nats a point."""
        num_draws: Annotated[int, Field(ge=1)]
        """Training points that are drawn where the task's draws are unlimited."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: BinaryVector) -> None:
        super().__init__(config, space)
        num = config.num_components
        self.log_weight: Tensor
        self.mean: Tensor
        self.validation_nll: Tensor
        self.register_buffer("log_weight", torch.full((num,), 1 / num).log())  # log pi
        self.register_buffer("mean", torch.full((num, space.dim), 0.5))  # mu
        # of every candidate, in nats: the smallest is the model's
        self.register_buffer("validation_nll", torch.full((len(config.smoothing),), torch.inf, dtype=torch.float64))

    @property
    def mixture(self) -> Mixture:
        """The fitted mixture."""
        return Mixture(self.log_weight, self.mean)

    def stages(self, data: Data) -> Sequence[Stage]:
        return [Call("EM", lambda rng: self._fit(data, rng))]

    @torch.no_grad()
    def _fit(self, data: Data, rng: Generator) -> None:
        c = self.config
        on_cpu = rng if rng.device.type == "cpu" else torch.Generator().manual_seed(rng.initial_seed())
        x = (data.draw(c.num_draws, on_cpu) if data.train is None else data.train).to(self.mean)
        validation = data.validation.to(self.mean)
        begin = start(x, c.num_components, rng=rng)
        self.validation_nll.fill_(torch.inf)
        for position, smoothing in enumerate(c.smoothing):
            mixture = self._climb(begin, x, Penalty(smoothing, c.weight_smoothing))
            nll = -mixture.log_prob(validation).double().mean()
            if nll < self.validation_nll.min():
                self.log_weight.copy_(mixture.log_weight)
                self.mean.copy_(mixture.mean)
            self.validation_nll[position] = nll

    def _climb(self, mixture: Mixture, x: Tensor, penalty: Penalty) -> Mixture:
        before = -torch.inf
        for _ in range(self.config.max_iterations):
            mixture, objective = em_step(mixture, x, penalty)
            if objective - before < self.config.tolerance * len(x):
                break
            before = objective
        return mixture

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        return self.mixture.log_prob(x.to(self.mean))

    @torch.no_grad()
    def sample(self, num: int, *, given: None = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, D)."""
        weight = self.log_weight.exp().to(rng.device)
        k = torch.multinomial(weight, num, replacement=True, generator=rng).to(self.mean.device)
        blocks = [
            torch.rand(len(rows), self.mean.shape[1], generator=rng, device=rng.device).to(self.mean) < self.mean[rows]
            for rows in k.split(ROWS)
        ]
        return torch.cat(blocks).to(torch.float32)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The posterior p(k | x) of every component, (B, K)."""
        blocks = x.to(self.mean).split(ROWS)
        return torch.cat([torch.softmax(self.mixture.log_joint(rows), 1) for rows in blocks])

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """P(x_i = 1 | k) averaged over the posterior of the component, (B, D)."""
        return self.encode(x) @ self.mean
