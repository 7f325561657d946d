"""k-means as an energy-based model with a latent variable: the energy of a point is its distance to a centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Likelihood, Model
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Stage

ROWS = 8192  # points whose distances to all centres are held together


class KMeansEBM(Model):
    """p(x) ~ exp(-E(x)) with E(x) = beta min_z |x - c_z|^2: the latent z is one of K centres.

    The centres come from scikit-learn's mini-batch k-means. They fix the energy up to its unit, which beta turns into
    nats. On bits exp(-beta |x - c_k|^2) is a product of Bernoullis times a mass of its own,

        Z_k = sum_x exp(-beta |x - c_k|^2) = prod_i (exp(-beta c_ki^2) + exp(-beta (1 - c_ki)^2)),

    and exp(-E), the largest of those terms, is at most their sum, so log Z <= log sum_k Z_k. That makes `log_prob` a
    lower bound in closed form, concave in beta, whose mean over validation points chooses beta. A centre k drawn in
    proportion to Z_k, then x from its Bernoullis, kept where c_k is the nearest centre, is an exact draw from p; the
    share kept is Z / sum_k Z_k, so the bound is off by minus its log, and never by more than log K.

    Sources: Y. LeCun, S. Chopra, R. Hadsell, M. Ranzato, F. J. Huang, "A tutorial on energy-based learning", 2006;
    D. Sculley, "Web-scale k-means clustering", 2010; A. Coates, H. Lee, A. Y. Ng, "An analysis of single-layer networks
    in unsupervised feature learning", 2011 (the features).
    """

    class Config(BaseConfig):
        num_centres: int = Field(ge=1)
        """Centres K."""
        num_points: int = Field(ge=1)
        """Training points that are drawn once where draws are unlimited."""
        batch_size: int = Field(ge=1)
        """Points of a mini-batch."""
        num_epochs: int = Field(ge=1)
        """Most passes over the points."""
        num_starts: int = Field(ge=1)
        """Random choices of first centres (k-means++), of which the best on a part of the points is kept."""

    likelihood = Likelihood(estimator="union", kind="lower_bound")

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.centres: Tensor
        self.beta: Tensor
        self.register_buffer("centres", torch.full((config.num_centres, space.dim), 0.5))  # (K, D), in [0, 1]
        self.register_buffer("beta", torch.ones(()))

    def stages(self, data: Data) -> Sequence[Stage]:
        return [
            Call("k-means", lambda rng: self._find_centres(data, rng)),
            Call("beta", lambda rng: self._choose_beta(data.validation)),
        ]

    def _find_centres(self, data: Data, rng: Generator) -> None:
        from sklearn.cluster import MiniBatchKMeans

        c = self.config
        cpu = torch.Generator().manual_seed(_integer(rng))
        x = data.train if data.train is not None else data.draw(c.num_points, cpu)
        if len(x) < c.num_centres:
            raise UserError(f"num_centres={c.num_centres} centres need as many points, and there are {len(x)}")
        found = MiniBatchKMeans(
            c.num_centres,
            batch_size=c.batch_size,
            max_iter=c.num_epochs,
            n_init=c.num_starts,
            random_state=_integer(cpu),
        ).fit(x.cpu().numpy())
        self.centres.copy_(torch.from_numpy(found.cluster_centers_).clamp(0, 1))

    def _choose_beta(self, x: Tensor) -> None:
        """The beta with the largest mean bound on log p of points x (M, D)."""
        from scipy.optimize import minimize_scalar

        distance = float(self._nearest(x.to(self.centres)).double().mean())

        def loss(log_beta: float) -> float:
            beta = math.exp(log_beta)
            return beta * distance + float(torch.logsumexp(self._log_masses(beta), 0))

        self.beta.fill_(math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))

    def _distances(self, x: Tensor) -> Tensor:
        """|x - c_k|^2 of bits x (B, D), (B, K)."""
        c = self.centres.to(x)
        return x @ (1 - 2 * c).T + c.square().sum(1)  # since x_i^2 = x_i

    def _nearest(self, x: Tensor) -> Tensor:
        """min_k |x - c_k|^2, (B,)."""
        return torch.cat([self._distances(rows).amin(1) for rows in x.split(ROWS)])

    def _log_masses(self, beta: float) -> Tensor:
        """log Z_k, (K,) float64."""
        c = self.centres.double()
        return torch.logaddexp(-beta * c.square(), -beta * (1 - c).square()).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = beta min_z |x - c_z|^2, (B,), in nats; piecewise linear in the bits."""
        return self.beta.to(x) * self._nearest(x)

    @torch.no_grad()
    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """-E(x) - log sum_k Z_k, (B,), in nats: at most log p(x), and at least log p(x) - log K."""
        return (-self.energy(x).double() - torch.logsumexp(self._log_masses(float(self.beta)), 0)).to(x.dtype)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` independent, exact draws (num, D), by rejection: at least one in K proposals is kept."""
        beta, kept, missing = float(self.beta), [], num
        weights = torch.softmax(self._log_masses(beta), 0).to(rng.device)
        while missing > 0:
            k = torch.multinomial(weights, min(2 * missing + 16, ROWS), replacement=True, generator=rng)
            k = k.to(self.centres.device)
            p = torch.sigmoid(beta * (2 * self.centres[k] - 1))
            x = (uniforms(tuple(p.shape), p, rng) < p).to(p.dtype)
            kept.append(x[self._distances(x).argmin(1) == k][:missing])
            missing -= len(kept[-1])
        return torch.cat(kept)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """max(0, mean_j d_j - d_k) for the distances d_k = |x - c_k|, (B, K): Coates's triangle activation."""
        d = self._distances(x).clamp(min=0).sqrt()
        return (d.mean(1, keepdim=True) - d).clamp(min=0)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The nearest centre, (B, D); as a mean of bits it lies in [0, 1]."""
        return self.centres[self._distances(x).argmin(1)]


def _integer(rng: Generator) -> int:
    """A seed for a library that takes an integer."""
    return int(torch.randint(2**31 - 1, (), generator=rng, device=rng.device))
