"""The inverse Ising problem: recover the couplings of a lattice from samples, measured against the known truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.metrics.ais import ais
from gmbench.metrics.ess import ess_per_evaluation
from gmbench.metrics.neg_log_rmse import neg_log_rmse
from gmbench.metrics.total_variation import total_variation
from gmbench.model import Data, HasEnergy, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import stream
from gmbench.samplers.chain import run_chain
from gmbench.samplers.gibbs import GibbsSweep
from gmbench.samplers.target import FunctionTarget
from gmbench.spaces import BinaryVector
from gmbench.task import Context, Measurement, Task

from ..likelihoods import LogZ, likelihood_measurement
from .exact import MAX_ENUMERATED, all_states, log_partition
from .lattice import adjacency, couplings, log_weight, supported_by_lattice
from .moments import Moments, exact_moments, sample_correlation, sample_energy_per_site
from .samples import exact_samples

NULL_DRAWS = 10


@dataclass(frozen=True)
class Truth:
    """The true distribution p(s) = exp(s'Js) / Z with J = sigma A."""

    side: int
    sigma: float

    @property
    def adjacency(self) -> Tensor:
        """A (D, D) of the periodic lattice, float64."""
        return adjacency(self.side)

    def couplings(self) -> Tensor:
        """J = sigma A, (D, D) float64."""
        return couplings(self.side, self.sigma)

    def energy(self, x: Tensor) -> Tensor:
        """-s'Js of states (B, D) in {0,1}: (B,) float64 nats."""
        return -log_weight(x, self.couplings().to(x.device))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p of states (B, D) in {0,1}: (B,) float64 nats."""
        return -self.energy(x) - _log_z(self.side, self.sigma)

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        """Exact independent samples (num, D) in {0,1}."""
        return exact_samples(self.side, self.sigma, num, rng=rng)


class Ising(Task):
    """The task in one variant; see the card for the protocol."""

    space: BinaryVector

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        side, _, other = self.variant["lattice"].partition("x")
        assert side == other, "the lattices are squares"
        self.truth = Truth(int(side), float(self.variant["sigma"]))
        self.space = BinaryVector(int(side) ** 2, layout=(int(side), int(side)))

    def data(self, seed: int) -> Data:
        num_train, num_validation = self.card.protocol["num_train"], self.card.protocol["num_validation"]
        names = ("ising/data", self.card.version, self.variant["lattice"], self.variant["sigma"], seed)
        train = self.truth.sample(num_train, rng=stream(*names, "train"))
        validation = self.truth.sample(num_validation, rng=stream(*names, "validation"))

        def draw(num: int, rng: torch.Generator) -> Tensor:
            return train[torch.randint(num_train, (num,), generator=rng)]

        return Data(self.space, train, draw, validation, self.truth)

    def measure_neg_log_rmse(self, model: Any, context: Context) -> Measurement:
        value = neg_log_rmse(model.couplings().cpu(), self.truth.couplings())
        return Measurement({"neg_log_rmse": value}, headline="neg_log_rmse")

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        x = _test_points(self.truth, self.budget["num_test"], self._test_seed())
        log_z = partial(self._log_z_of, rng=context.rng)
        return likelihood_measurement(model, x, self.truth.log_prob(x), log_z, context.rng)

    def measure_moments(self, model: Any, context: Context) -> Measurement:
        num = self.budget["num_samples"]
        found = _moment_errors(self.truth, context.draws(num))
        note = "a perfect sampler; stderr is its sd"
        for key, values in _null_of_moments(self.truth, num, self.rng("null").initial_seed()).items():
            mean, sd = float(values.mean()), float(values.std())
            found[f"{key}.null"] = Estimate(value=mean, stderr=sd, n=num, kind="upper_bound", note=note)
        return Measurement(found)

    def measure_ess(self, model: Any, context: Context) -> Measurement:
        kernel = model.sampler()
        target = FunctionTarget(lambda x: -model.energy(x))
        num_chains, num_steps = self.budget["ess_chains"], self.budget["ess_steps"]
        x = torch.randint(2, (num_chains, self.space.dim), generator=context.rng, device=context.rng.device).float()
        warm = run_chain(kernel, target, x, num_steps // 4, rng=context.rng)
        run = run_chain(kernel, target, warm.x, num_steps, rng=context.rng, record=target.log_prob)
        assert run.series is not None
        return Measurement({"ess_per_evaluation": ess_per_evaluation(run.series, run.num_evaluations)})

    def _log_z_of(self, model: HasEnergy, rng: torch.Generator) -> LogZ:
        dim, device = self.space.dim, rng.device
        if dim <= MAX_ENUMERATED:
            blocks = all_states(dim).to(device).split(1 << 14)
            value = torch.logsumexp(torch.cat([-model.energy(block).double() for block in blocks]), 0)
            return LogZ(Estimate(value=float(value), kind="exact"), "exact")
        if (J := _couplings(model)) is not None and supported_by_lattice(J, self.truth.side):
            # An energy may carry a constant beside its couplings; with anything else they say nothing of its log Z.
            x = torch.randint(2, (100, dim), generator=rng, device=device).float()
            rest = -model.energy(x).double().cpu() - log_weight(x.cpu(), J)
            if float(rest.max() - rest.min()) < 1e-3:
                value = log_partition(J, self.truth.side) + float(rest.mean())
                return LogZ(Estimate(value=value, kind="exact"), "exact")
        chains, steps = self.budget["ais_chains"], self.budget["ais_steps"]
        base = torch.full((dim,), 0.5, device=device)
        target = FunctionTarget(lambda x: -model.energy(x))
        found = ais(target, base, GibbsSweep(), num_chains=chains, num_steps=steps, rng=rng)
        return LogZ(found.log_z, f"ais{steps}x{chains}")

    def _test_seed(self) -> int:
        return self.rng("test").initial_seed()


def _couplings(model: Any) -> Tensor | None:
    if not offers(model, "couplings"):
        return None
    try:
        J: Tensor = model.couplings().cpu()
        return J
    except MissingCapability:
        return None


def _moment_errors(truth: Truth, x: Tensor) -> dict[str, Estimate]:
    moments, num, dim = _moments(truth.side, truth.sigma), len(x), x.shape[1]
    energy = sample_energy_per_site(x, truth.couplings())
    size = torch.arange(dim + 1)[moments.magnetisation > 0]
    cells = torch.searchsorted(size, (2 * x.sum(1) - dim).abs().round().long())
    correlation = sample_correlation(x, truth.side).mean(0)
    rmse = float((correlation - moments.correlation).square().mean().sqrt())
    plug_in = "plug-in, biased up: compare with the null of a perfect sampler"
    return {
        "energy_per_site_error": Estimate(
            value=float(energy.mean()) - moments.energy_per_site, stderr=float(energy.std()) / num**0.5, n=num
        ),
        f"magnetisation_tv.n{num}": total_variation(cells, moments.magnetisation[size]),
        f"correlation_rmse.n{num}": Estimate(value=rmse, n=num, kind="upper_bound", note=plug_in),
    }


# Truths depend on the variant alone: several runs in one process share them.
@cache
def _log_z(side: int, sigma: float) -> float:
    return log_partition(couplings(side, sigma), side)


@cache
def _moments(side: int, sigma: float) -> Moments:
    return exact_moments(side, sigma)


@cache
def _test_points(truth: Truth, num: int, seed: int) -> Tensor:
    return truth.sample(num, rng=torch.Generator().manual_seed(seed))


@cache
def _null_of_moments(truth: Truth, num: int, seed: int) -> dict[str, Tensor]:
    """What a perfect sampler of `num` draws scores, `NULL_DRAWS` times, for the errors that are not 0 on average."""
    draws = truth.sample(NULL_DRAWS * num, rng=torch.Generator().manual_seed(seed)).split(num)
    errors = [_moment_errors(truth, x) for x in draws]
    biased = [key for key, error in errors[0].items() if error.kind != "unbiased"]
    return {key: torch.tensor([error[key].value for error in errors]) for key in biased}
