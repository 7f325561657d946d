"""Log-likelihoods of token sequences, of every kind that a model offers: exact by token, of a text, or a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Kind
from gmbench.metrics.importance_bound import evidence_bound, importance_bound
from gmbench.model import offers
from gmbench.spaces import TokenSequence

BLOCK = 256
REQUIRES = "token_log_prob|log_prob|score_text|log_likelihood"  # for the cards of tasks


@dataclass(frozen=True)
class SequenceLikelihood:
    """Log p of test sequences by one estimator.

    Arguments:
        key: The estimator with its budget, behind the subject where the model has several: `exact`, `iw500` …
        kind: What `log_p` is of log p.
        log_p: Of each sequence, its end included, (N,), float64 nats.
        by_token: Of each position given those before, (N, T), float64 nats; None where only whole sequences are scored.
    """

    key: str
    kind: Kind
    log_p: Tensor
    by_token: Tensor | None = None


def sequence_likelihoods(
    model: Any, x: Tensor, space: TokenSequence, budget: Mapping[str, Any], rng: Generator
) -> list[SequenceLikelihood]:
    """Every log-likelihood of sequences x (N, T) that the model offers, the one that ranks it first.

    Arguments:
        model: Something with `token_log_prob`, `log_prob`, `score_text`, or prior, posterior and `log_likelihood`.
        budget: `num_importance`, and `num_elbo` latents a sequence for the bounds of latent-variable models.
        rng: For what draws; on the model's device.

    A key is of one estimator: where the model calls its `log_prob` as one of ours is called, that becomes `own.…`. The
    text of a sentence is scored as the model itself splits it, which is one way of several: a lower bound.

    Raises:
        MissingCapability: The model declines all of them.
    """
    found: list[SequenceLikelihood] = []
    if offers(model, "token_log_prob"):
        blocks = x.to(rng.device).split(BLOCK)
        by_token = torch.cat([model.token_log_prob(block).double().cpu() for block in blocks])
        found.append(SequenceLikelihood("exact", "exact", by_token.sum(1), by_token))
    elif offers(model, "log_prob"):
        blocks = x.to(rng.device).split(BLOCK)
        log_p = torch.cat([model.log_prob(block, rng=rng).double().cpu() for block in blocks])
        found.append(SequenceLikelihood(model.likelihood.key, model.likelihood.kind, log_p))
    if offers(model, "score_text") and x.shape[1] == space.max_length:  # rows of pairs are no one text
        found.append(SequenceLikelihood("text", "lower_bound", model.score_text(space.text(x)).double().cpu()))
    if all(offers(model, name) for name in ("prior", "posterior", "log_likelihood")):
        found += _bounds(model, x, budget, rng)
    if not found:
        raise MissingCapability(f"needs {REQUIRES.replace('|', ' or ')}, which the model does not offer")
    if found[0].key in {one.key for one in found[1:]}:
        found[0] = replace(found[0], key=f"own.{found[0].key}")
    return found


def _bounds(model: Any, x: Tensor, budget: Mapping[str, Any], rng: Generator) -> list[SequenceLikelihood]:
    parts = (model.prior(), model.posterior, model.log_likelihood, x.to(rng.device))
    tight = importance_bound(*parts, num_importance=budget["num_importance"], rng=rng).cpu()
    loose = evidence_bound(*parts, num_draws=budget["num_elbo"], rng=rng).elbo.cpu()
    return [
        SequenceLikelihood(f"iw{budget['num_importance']}", "lower_bound", tight),
        SequenceLikelihood("elbo", "lower_bound", loose),
    ]
