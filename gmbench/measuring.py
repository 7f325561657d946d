"""Measuring a fitted model: every metric of a task that the model allows, each on its own random stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Model
from gmbench.progress import Progress, Silent
from gmbench.randomness import stream
from gmbench.spaces import BinaryVector, Space, TokenPair, TokenSequence
from gmbench.task import Context, Draws, Measurement, Task
from gmbench.training import Interrupted

_ROUNDING = 1e-4  # nats by which the log p of a token may be above 0
_ROUNDING_OF_SUMS = 1e-3  # that of a whole point
_DISCRETE = (BinaryVector, TokenSequence, TokenPair)  # where p is a probability and no density


class _Offered(SimpleNamespace):
    """The capabilities of a model; those that give log-probabilities or energies must give one number each."""

    def __init__(self, model: Any, space: Space) -> None:
        offered = {name: getattr(model, name) for name in (*CAPABILITIES, "likelihood") if hasattr(model, name)}
        exact = getattr(offered.get("likelihood"), "kind", None) == "exact"
        at_most_0 = {"pseudo_log_prob", "score_text", *(["log_prob"] if exact else [])}
        for name in {"log_prob", "energy", "pseudo_log_prob", "score_text"} & set(offered):
            limited = isinstance(space, _DISCRETE) and name in at_most_0
            offered[name] = _one_number_a_point(name, offered[name], limited=limited)
        if "log_likelihood" in offered and isinstance(space, _DISCRETE):
            offered["log_likelihood"] = _conditional(offered["log_likelihood"])
        if "token_log_prob" in offered:
            offered["token_log_prob"] = _one_number_a_token(offered["token_log_prob"], space)
        super().__init__(**offered)


def _one_number_a_point(name: str, method: Callable[..., Any], *, limited: bool) -> Callable[..., Any]:
    def checked(x: torch.Tensor, **named: Any) -> Any:
        values = method(x, **named)
        shape = tuple(getattr(values, "shape", ()))
        if shape != (len(x),):
            raise UserError(f"{name} gave shape {shape} for {len(x)} points where ({len(x)},) is expected")
        _check_values(name, values, limited=limited)
        return values

    return checked


def _conditional(method: Callable[..., Any]) -> Callable[..., Any]:
    """log p(x | z), which a bound is made of: one above 0 would make any bound look good."""

    def checked(x: torch.Tensor, z: torch.Tensor) -> Any:
        values = method(x, z)
        _check_values("log_likelihood", values, limited=True)
        return values

    return checked


def _check_values(name: str, values: torch.Tensor, *, limited: bool) -> None:
    if bool(values.isnan().any()):
        raise UserError(f"{name} gave NaN for {int(values.isnan().sum())} of {values.numel()} points")
    if limited and bool((values > _ROUNDING_OF_SUMS).any()):
        raise UserError(f"{name} gave {float(values.max()):.3g}: the log p of a discrete point is at most 0")


def _one_number_a_token(method: Callable[..., Any], space: Space) -> Callable[..., Any]:
    """A number off by one position, or behind the end, would be summed into a likelihood like any other."""

    def checked(x: torch.Tensor) -> Any:
        values = method(x)
        target = space.split(x)[1] if isinstance(space, TokenPair) else x
        shape = tuple(getattr(values, "shape", ()))
        if shape != tuple(target.shape):
            raise UserError(f"token_log_prob gave shape {shape} where {tuple(target.shape)} is expected")
        if bool(values.isnan().any()):
            raise UserError(f"token_log_prob gave NaN at {int(values.isnan().sum())} of {values.numel()} positions")
        padded = target == TokenSequence.PAD
        if bool((values[padded] != 0).any()):
            raise UserError("token_log_prob gave padding (token 0) a log p other than 0")
        if bool((values > _ROUNDING).any()):
            raise UserError(f"token_log_prob gave {float(values.max()):.3g}: a token's log p is at most 0")
        return values

    return checked


@dataclass
class Measured:
    """What measuring gave, metric by metric, and what it took."""

    merged: Measurement = field(default_factory=Measurement)
    unavailable: dict[str, str] = field(default_factory=dict)
    wall_seconds: float = 0.0
    process_seconds: float = 0.0
    samples_per_second: float | None = None


def measure(
    task: Task,
    model: Any,
    seed: int,
    *,
    draws: Draws | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measured:
    """Measures `model`, anything with methods of capabilities, by every metric of the task's card.

    Arguments:
        seed: The run's seed, from which the streams `measure/<metric>` and `measure/draws` derive.
        draws: The samples that metrics share; by default they are drawn from the model.
        should_stop: Asked between metrics; when it says yes, Interrupted is raised.
    """
    progress = progress or Silent()
    found = Measured()
    wall, process = time.perf_counter(), time.process_time()
    device = model.device if isinstance(model, Model) else torch.device("cpu")
    drawn = task.space.target if isinstance(task.space, TokenPair) else task.space  # of pairs a model draws the targets
    draws = draws or Draws(model, stream("measure/draws", seed, device=device), drawn)
    measured = _Offered(model, task.space)
    progress.stage("measure", len(task.card.metrics), 0)
    for done, (name, card) in enumerate(task.card.metrics.items(), start=1):
        context = Context(stream(f"measure/{name}", seed, device=device), draws)
        try:
            with torch.no_grad():
                one = task.measure(name, measured, context)
        except MissingCapability as reason:
            found.unavailable[name] = str(reason)
            continue
        finally:
            progress.advance(done, {})
        found.merged.estimates.update(one.estimates)
        found.merged.pictures.update(one.pictures)
        if card.headline:
            found.merged.headline, found.merged.per_point = one.headline, one.per_point
        if should_stop():
            raise Interrupted
    found.wall_seconds = time.perf_counter() - wall
    found.process_seconds = time.process_time() - process
    found.samples_per_second = draws.per_second
    return found
