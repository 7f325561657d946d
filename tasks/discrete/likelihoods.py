"""Likelihoods of discrete models: their own log p, and that of their energy with an estimated log Z."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate, Kind
from gmbench.metrics.likelihood import excess_nats, excess_nats_per_point, nll
from gmbench.model import HasEnergy, HasLogProb
from gmbench.task import Measurement

BLOCK = 500

# An underestimated log Z overestimates every log p made with it.
_KIND_OF_LOG_P: dict[Kind, Kind] = {
    "exact": "exact",
    "unbiased": "unbiased",
    "consistent": "consistent",
    "lower_bound": "upper_bound",
    "upper_bound": "lower_bound",
}


@dataclass(frozen=True)
class LogZ:
    """log Z of a model's energy, and the name of the estimator that goes into the metric's key."""

    estimate: Estimate
    estimator: str


def likelihood_measurement(
    model: Any, x: Tensor, log_p_true: Tensor, log_z: Callable[[HasEnergy], LogZ], rng: torch.Generator
) -> Measurement:
    """`excess_nats.*` and `nll.*` of every distribution that the model offers, on the same test points.

    The headline is the model's own likelihood where it has one (of a GFlowNet: its bound), else its energy's.

    Arguments:
        model: Something with `log_prob`, `energy` or both.
        x: Test points of the truth (N, D), on the CPU.
        log_p_true: Their exact log-probabilities (N,), float64 nats.
        log_z: Computes log Z of the model's energy.
        rng: For stochastic estimators of log p; on the model's device.

    Raises:
        MissingCapability: The model declines both.
    """
    found = Measurement()
    blocks = x.to(rng.device).split(BLOCK)
    declined = []
    if isinstance(model, HasLogProb):
        try:
            log_p = torch.cat([model.log_prob(block, rng=rng).double().cpu() for block in blocks])
            _add(found, model.likelihood.key, log_p, log_p_true, model.likelihood.kind, 0.0)
        except MissingCapability as reason:
            declined.append(str(reason))
    if isinstance(model, HasEnergy):
        try:
            minus_energy = -torch.cat([model.energy(block).double().cpu() for block in blocks])
            z = log_z(model)
            _add(
                found,
                f"ebm.{z.estimator}",
                minus_energy - z.estimate.value,
                log_p_true,
                _KIND_OF_LOG_P[z.estimate.kind],
                z.estimate.stderr or 0.0,
            )
        except MissingCapability as reason:
            declined.append(str(reason))
    if not found.estimates:
        raise MissingCapability("; ".join(declined))
    return found


def _add(found: Measurement, key: str, log_p: Tensor, log_p_true: Tensor, kind: Kind, log_z_stderr: float) -> None:
    found.estimates[f"excess_nats.{key}"] = excess_nats(log_p, log_p_true, kind, log_z_stderr=log_z_stderr)
    found.estimates[f"nll.{key}"] = nll(log_p, kind, log_z_stderr=log_z_stderr)
    if not found.headline:
        found.headline = f"excess_nats.{key}"
        found.per_point = excess_nats_per_point(log_p, log_p_true).float()
