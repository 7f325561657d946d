"""Log-likelihoods of test images under whatever a model offers, each with its estimator and its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Kind
from gmbench.metrics.ais import ais, data_base, raise_
from gmbench.metrics.harmonium import (
    MAX_BITS,
    ais_harmonium,
    exact_log_partition,
    log_density,
    raise_harmonium,
)
from gmbench.metrics.importance_bound import evidence_bound, importance_bound
from gmbench.metrics.log_partition import enumerate_log_partition
from gmbench.model import Harmonium, offers
from gmbench.samplers.gwg import GibbsWithGradients
from gmbench.samplers.target import FunctionTarget

BLOCK = 500
ELBO_DRAWS = 50  # a point; more of them only lessen the noise
LATENT = ("prior", "posterior", "log_likelihood")
MAX_ENUMERATED = 16
MAX_ROWS = 5000  # training points whose means are enough for a base


@dataclass(frozen=True)
class Scored:
    """log p of the test points by one estimator.

    Arguments:
        key: Which distribution and estimator: `exact`, `iw5000`, `annealed.raise1000x1` …
        log_p: (N,), float64, nats.
        kind: What `log_p` is of log p(x).
        log_z_stderr: Standard error of a log Z that all points share.
    """

    key: str
    log_p: Tensor
    kind: Kind
    log_z_stderr: float = 0.0


def log_likelihoods(
    model: Any, x: Tensor, train: Tensor, budget: Mapping[str, Any], rng: Generator
) -> Iterator[Scored]:
    """Every estimate of log p(x) that the model allows; the first is the one that ranks it.

    An energy on few bits is enumerated first, unless the model has another distribution beside it; then come a model's
    own `log_prob`; the importance-weighted bound of a latent-variable model; a harmonium or an energy, whose log Z is
    exact where a layer or the space is small. Where it is not, forward AIS is optimistic and only shown.
    What ranks then is the subject `annealed`: the distribution that annealing reaches from the training data's means in
    the stated number of steps, of whose likelihood RAISE is a bound. It is close to the machine's or the energy's own
    where annealing finds all of its modes; where it does not, neither number tells.

    Arguments:
        x: Test points (N, D).
        train: Training points (M, D), whose means are those of the product of Bernoullis where annealing starts.
        budget: num_importance, ais_steps, ais_chains, raise_steps, raise_chains, num_ascents.
        rng: On the model's device.

    Raises:
        MissingCapability: The model allows none.
    """
    x, train = x.to(rng.device), train.to(rng.device)
    found = False
    declined = []
    enumerated = offers(model, "energy") and not offers(model, "harmonium") and x.shape[1] <= MAX_ENUMERATED
    if enumerated and (not offers(model, "log_prob") or not model.likelihood.subject):
        try:  # the same distribution as that of a bound that the model may offer, but exact
            yield _enumerated(model, x, rng)
            found = True
        except MissingCapability as reason:
            declined.append(str(reason))
    if offers(model, "log_prob"):
        try:
            log_p = torch.cat([model.log_prob(block, rng=rng).double() for block in x.split(BLOCK)])
            yield Scored(model.likelihood.key, log_p.cpu(), model.likelihood.kind)
            found = True
        except MissingCapability as reason:
            declined.append(str(reason))
    if all(offers(model, capability) for capability in LATENT):
        K = budget["num_importance"]
        latent = (model.prior(), model.posterior, model.log_likelihood)
        yield Scored(f"iw{K}", importance_bound(*latent, x, num_importance=K, rng=rng).cpu(), "lower_bound")
        yield Scored("elbo", evidence_bound(*latent, x, num_draws=ELBO_DRAWS, rng=rng).elbo.cpu(), "lower_bound")
        found = True
    try:
        if offers(model, "harmonium"):
            yield from _of_harmonium(model, x, train, budget, rng)
            found = True
        elif enumerated and found and offers(model, "log_prob") and model.likelihood.subject:
            yield _enumerated(model, x, rng)
        elif offers(model, "energy") and not enumerated:
            yield from _of_energy(model, x, train, budget, rng, ranks=not found)
            found = True
    except MissingCapability as reason:
        declined.append(str(reason))
    if not found:
        raise MissingCapability("; ".join(declined) or "the model offers no likelihood of any kind")


def _of_harmonium(
    model: Any, x: Tensor, train: Tensor, budget: Mapping[str, Any], rng: Generator
) -> Iterator[Scored]:
    machine: Harmonium = model.harmonium()
    deep = offers(model, "ascend")
    if deep:
        ascents = [_ascend(model, x, rng) for _ in range(budget["num_ascents"])]
        train = _ascend(model, train[:MAX_ROWS], rng)[0]  # annealing starts at the means of the top's visible bits
    else:
        ascents = [(x, torch.zeros(len(x), dtype=torch.float64, device=x.device))]
    log_f = torch.stack([log_density(machine, v.double()) + log_w for v, log_w in ascents])  # (S, N)
    log_f = (torch.logsumexp(log_f, 0) - torch.log(torch.tensor(len(ascents)))).cpu()
    name = f"iw{len(ascents)}." if deep else ""
    if min(machine.weight.shape) <= MAX_BITS:
        log_z = float(exact_log_partition(machine))
        yield Scored(f"{name}exact_z" if deep else "exact", log_f - log_z, "lower_bound" if deep else "exact")
        return
    base = data_base(train)
    steps, chains = budget["raise_steps"], budget["raise_chains"]
    parts = []
    for _ in range(chains):
        v, log_w = _ascend(model, x, rng) if deep else ascents[0]
        blocks = v.split(BLOCK)
        one = [raise_harmonium(machine, base, block, num_chains=1, num_steps=steps, rng=rng) for block in blocks]
        parts.append(torch.cat(one) + log_w)
    log_p = torch.logsumexp(torch.stack(parts), 0) - torch.log(torch.tensor(float(chains)))
    yield Scored(f"annealed.raise{steps}x{chains}", log_p.double().cpu(), "lower_bound")
    steps, chains = budget["ais_steps"], budget["ais_chains"]
    z = ais_harmonium(machine, base, num_chains=chains, num_steps=steps, rng=rng).log_z
    # of a deep machine log f is a bound from below, but a log Z that misses a mode is worse than that
    yield Scored(f"{name}ais{steps}x{chains}", log_f - z.value, "upper_bound", z.stderr or 0.0)


def _ascend(model: Any, x: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    v, log_w = model.ascend(x, rng=rng)
    return v, log_w.double()


def _enumerated(model: Any, x: Tensor, rng: Generator) -> Scored:
    def log_f(points: Tensor) -> Tensor:
        value: Tensor = -model.energy(points)
        return value

    log_z = enumerate_log_partition(log_f, x.shape[1], device=rng.device)
    of_x = torch.cat([log_f(block).double() for block in x.split(BLOCK)]).cpu()
    return Scored("ebm.exact", of_x - log_z.value, "exact")


def _of_energy(
    model: Any, x: Tensor, train: Tensor, budget: Mapping[str, Any], rng: Generator, *, ranks: bool
) -> Iterator[Scored]:
    def log_f(points: Tensor) -> Tensor:
        value: Tensor = -model.energy(points)
        return value

    base = data_base(train)
    of_x = torch.cat([log_f(block).double() for block in x.split(BLOCK)]).cpu()
    target, kernel, suffix = FunctionTarget(log_f), GibbsWithGradients(), ""
    if not _is_differentiable(log_f, x[:1]):
        kernel, suffix = GibbsWithGradients(exact=True), ".exact_flips"
    if ranks:
        steps, chains = budget["raise_steps"], budget["raise_chains"]
        log_p = torch.cat([
            raise_(target, base, block, kernel, num_chains=chains, num_steps=steps, rng=rng)
            for block in x.split(BLOCK)
        ])  # fmt: skip
        yield Scored(f"annealed.raise{steps}x{chains}{suffix}", log_p.cpu(), "lower_bound")
    steps, chains = budget["ais_steps"], budget["ais_chains"]
    z = ais(target, base, kernel, num_chains=chains, num_steps=steps, rng=rng).log_z
    yield Scored(f"ebm.ais{steps}x{chains}{suffix}", of_x - z.value, "upper_bound", z.stderr or 0.0)


def _is_differentiable(log_f: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    with torch.enable_grad():
        return log_f(x.detach().clone().requires_grad_()).requires_grad


def score(model: Any, x: Tensor, num_importance: int, rng: Generator) -> Tensor:
    """A number that is larger where the model finds x more likely: log p, a bound on it, or minus the energy, (N,).

    Raises:
        MissingCapability: The model offers none of them.
    """
    x = x.to(rng.device)
    declined = "the model offers neither a likelihood nor an energy"
    for capability in ("log_prob", "energy"):
        if offers(model, capability):
            try:
                if capability == "energy":
                    return -torch.cat([model.energy(block) for block in x.split(BLOCK)]).cpu()
                return torch.cat([model.log_prob(block, rng=rng) for block in x.split(BLOCK)]).cpu()
            except MissingCapability as reason:
                declined = str(reason)
    if all(offers(model, capability) for capability in LATENT):
        prior, posterior, log_likelihood = model.prior(), model.posterior, model.log_likelihood
        return importance_bound(prior, posterior, log_likelihood, x, num_importance=num_importance, rng=rng).cpu()
    raise MissingCapability(declined)


