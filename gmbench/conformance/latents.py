"""The checks of a model's features, reconstructions and latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gmbench.conformance.checks import Skipped, require
from gmbench.model import offers
from gmbench.randomness import stream
from gmbench.spaces import BinaryVector

LATENT = ("prior", "posterior", "log_likelihood")


def deterministic_answers(model: Any, points: Tensor) -> dict[str, Tensor]:
    """What the capabilities that draw nothing answer, by name."""
    found: dict[str, Tensor] = {}
    for name in ("encode", "reconstruct"):
        if offers(model, name):
            found[name] = getattr(model, name)(points)
    if offers(model, "posterior"):
        found["posterior"] = model.posterior(points).mean
        if offers(model, "decode"):
            found["decode"] = model.decode(found["posterior"])
        if offers(model, "log_likelihood"):
            found["log_likelihood"] = model.log_likelihood(points, found["posterior"][None])
    if offers(model, "harmonium"):
        found["harmonium"] = model.harmonium().weight
    return found


def features_have_their_shape(m: Any) -> None:
    features = m.ask("encode")(m.points)
    require(features.ndim == 2 and len(features) == len(m.points), f"encode gave shape {tuple(features.shape)}")
    require(bool(features.isfinite().all()), "encode gave values that are not finite numbers")
    require(torch.equal(features, m.ask("encode")(m.points)), "encode gave other features the second time")


def reconstructions_are_probabilities(m: Any) -> None:
    _require_bits(m)
    p = m.ask("reconstruct")(m.points)
    require(p.shape == m.points.shape, f"reconstruct gave shape {tuple(p.shape)} for {tuple(m.points.shape)}")
    require(bool(((p >= 0) & (p <= 1)).all()), "reconstruct gave values outside of [0, 1]")


def latents_fit_together(m: Any) -> None:
    missing = [name for name in LATENT if not offers(m.fitted, name)]
    if len(missing) == len(LATENT):
        raise Skipped("the model has no latents")
    require(not missing, f"latents need {', '.join(missing)} too")
    prior, posterior, num = m.fitted.prior(), m.fitted.posterior(m.points), len(m.points)
    size = prior.event_shape
    require(len(size) == 1 and not prior.batch_shape, f"prior: event shape {tuple(size)} where (Z,) is expected")
    require(posterior.event_shape == size, f"posterior: event {tuple(posterior.event_shape)}, prior: {tuple(size)}")
    require(posterior.batch_shape == (num,), f"posterior: batch shape {tuple(posterior.batch_shape)} for {num} points")
    z = posterior.mean + torch.zeros(3, 1, 1)  # (3, B, Z)
    log_p = m.fitted.log_likelihood(m.points, z)
    require(log_p.shape == (3, num), f"log_likelihood gave shape {tuple(log_p.shape)} where {(3, num)} is expected")
    require(bool((log_p <= 0).all()), "log_likelihood is positive: no probability is above 1")


def decoded_means_are_probabilities(m: Any) -> None:
    decode = m.ask("decode")
    _require_bits(m)
    means = decode(m.fitted.prior().mean.expand(5, -1))
    require(means.shape == (5, m.points.shape[1]), f"decode gave shape {tuple(means.shape)}")
    require(bool(((means >= 0) & (means <= 1)).all()), "decode gave means outside of [0, 1]")


def harmonium_takes_what_ascends(m: Any) -> None:
    weight, visible, hidden = m.ask("harmonium")()
    require(
        tuple(weight.shape) == (len(visible), len(hidden)),
        f"a harmonium's weight is {tuple(weight.shape)} where {(len(visible), len(hidden))} is expected",
    )
    v, log_weight = m.points, torch.zeros(len(m.points))
    if offers(m.fitted, "ascend"):
        v, log_weight = m.fitted.ascend(m.points, rng=stream("check"))
    expected = (len(m.points), len(visible))
    require(v.shape == expected, f"the harmonium takes {expected}, and ascend gives {tuple(v.shape)}")
    require(log_weight.shape == (len(m.points),), f"ascend gave log weights of shape {tuple(log_weight.shape)}")
    require(bool(((v == 0) | (v == 1)).all()), "ascend gave values other than 0 and 1")


def _require_bits(m: Any) -> None:
    if not isinstance(m.data.space, BinaryVector):
        raise Skipped("points are no bits")
