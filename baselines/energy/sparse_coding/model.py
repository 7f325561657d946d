"""Sparse coding as an energy-based model with a latent code: the energy is the cheapest description of a point."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, softshrink

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.samplers.chain import run_chain
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.noise import uniforms
from gmbench.samplers.target import FunctionTarget, flip_delta
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage

ROWS = 4096  # points whose codes are computed together


class SparseCoding(Model):
    """p(x) ~ exp(-E(x)) with E(x) = beta min_z F(x, z), F(x, z) = |x - m - D'z|^2 / 2 + lambda |z|_1.

    The dictionary D (K, dim), of unit rows, comes from scikit-learn's mini-batch dictionary learning on points minus
    their mean m. Codes are found by FISTA: the same problem as scikit-learn's sparse_encode, which tests compare with,
    but for a whole batch at once (14 against 290 microseconds a point of 64 bits, 64 atoms): chains on E need many.
    F is convex in z, and E's gradient in x is beta (x - m - D'z) at the best code.

    F knows no unit; beta, which makes nats of it, maximises the pseudo-likelihood of validation points.

    Sources: B. A. Olshausen, D. J. Field, "Emergence of simple-cell receptive field properties by learning a sparse
    code for natural images", 1996; Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato, F. J. Huang, "A tutorial on
    energy-based learning", 2006; J. Mairal, F. Bach, J. Ponce, G. Sapiro, "Online dictionary learning for sparse
    coding", 2009; A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems", 2009.
    """

    class Config(BaseConfig):
        num_atoms: int = Field(ge=1)
        """Atoms K of the dictionary."""
        penalty: float = Field(gt=0)
        """lambda, the weight of |z|_1."""
        num_points: int = Field(ge=1)
        """Training points that are drawn once where draws are unlimited."""
        batch_size: int = Field(ge=1)
        """Points of a mini-batch."""
        num_epochs: int = Field(ge=1)
        """Most passes over the points."""
        code_steps: int = Field(ge=1)
        """Steps of FISTA to a code."""
        validation_points: int = Field(ge=1)
        """Validation points on which beta is chosen; each takes as many codes as it has bits."""
        sample_steps: int = Field(ge=0)
        """Proposed flips (Gibbs with gradients) from an independent start to each sample."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.mean: Tensor
        self.dictionary: Tensor
        self.curvature: Tensor
        self.beta: Tensor
        self.register_buffer("mean", torch.full((space.dim,), 0.5))  # m
        self.register_buffer("dictionary", torch.zeros(config.num_atoms, space.dim))  # D
        self.register_buffer("curvature", torch.ones(()))  # the largest eigenvalue of DD', at least 1
        self.register_buffer("beta", torch.ones(()))

    def stages(self, data: Data) -> Sequence[Stage]:
        return [
            Call("dictionary", lambda rng: self._learn_dictionary(data, rng)),
            Call("beta", lambda rng: self._choose_beta(data.validation[: self.config.validation_points])),
        ]

    def _learn_dictionary(self, data: Data, rng: Generator) -> None:
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning

        c = self.config
        cpu = torch.Generator().manual_seed(_integer(rng))
        x = (data.train if data.train is not None else data.draw(c.num_points, cpu)).cpu()
        self.mean.copy_(x.mean(0))
        learner = MiniBatchDictionaryLearning(
            c.num_atoms,
            alpha=c.penalty,
            max_iter=c.num_epochs,
            batch_size=c.batch_size,
            fit_algorithm="cd",
            random_state=_integer(cpu),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # codes of the first, random dictionary
            atoms = learner.fit((x - x.mean(0)).numpy()).components_
        D = torch.from_numpy(atoms).double()
        self.dictionary.copy_(D)
        self.curvature.copy_(torch.linalg.eigvalsh(D @ D.T)[-1].clamp(min=1))

    @torch.no_grad()
    def _choose_beta(self, x: Tensor) -> None:
        """The beta with the largest mean log pseudo-likelihood of points x (M, dim)."""
        from scipy.optimize import minimize_scalar

        gain = flip_delta(FunctionTarget(lambda points: -self._description(points)), x.to(self.mean)).double()

        def loss(log_beta: float) -> float:
            return -float(logsigmoid(-math.exp(log_beta) * gain).sum(1).mean())

        self.beta.fill_(math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The code z that minimises F(x, z), (B, K), by `code_steps` steps of FISTA from zero."""
        D, step = self.dictionary.to(x), 1 / self.curvature.to(x)
        shrink = float(self.config.penalty * step)
        codes = []
        gram = D @ D.T
        for rows in x.split(ROWS):
            target = (rows - self.mean.to(x)) @ D.T
            z = look_ahead = torch.zeros_like(target)
            t = 1.0
            for _ in range(self.config.code_steps):
                before, z = z, softshrink(look_ahead - step * (look_ahead @ gram - target), shrink)
                t, momentum = (1 + math.sqrt(1 + 4 * t * t)) / 2, t - 1
                look_ahead = z + momentum / t * (z - before)
            codes.append(z)
        return torch.cat(codes)

    def _description(self, x: Tensor) -> Tensor:
        """min_z F(x, z), (B,); a gradient in x takes the code as given, which is exact at the minimum."""
        z = self.encode(x)
        residual = x - self.mean.to(x) - z @ self.dictionary.to(x)
        return residual.square().sum(1) / 2 + self.config.penalty * z.abs().sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = beta min_z F(x, z), (B,), in nats; its normalising constant is unknown."""
        return self.beta.to(x) * self._description(x)

    def sampler(self) -> GibbsWithGradients:
        """One proposed flip a step. Training needs no sampler; this one makes the samples."""
        return GibbsWithGradients()

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` states (num, dim) after `sample_steps` proposed flips from independent bits with the data's means.

        The draws are independent; their law is the model's only in the limit of many steps.
        """
        target = FunctionTarget(lambda x: -self.energy(x))
        drawn = []
        for begin in range(0, num, ROWS):
            shape = (min(ROWS, num - begin), len(self.mean))
            start = (uniforms(shape, self.mean, rng) < self.mean).to(self.mean.dtype)
            drawn.append(run_chain(self.sampler(), target, start, self.config.sample_steps, rng=rng).x)
        return torch.cat(drawn)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """m + D'z at the best code, clamped to [0, 1], (B, dim)."""
        return (self.mean.to(x) + self.encode(x) @ self.dictionary.to(x)).clamp(0, 1)


def _integer(rng: Generator) -> int:
    """A seed for a library that takes an integer."""
    return int(torch.randint(2**31 - 1, (), generator=rng, device=rng.device))
