"""The task contract: data, the protocol, and how each of its metrics is measured on a fitted model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gmbench.errors import MissingCapability, UserError
from gmbench.estimate import Estimate
from gmbench.model import Data, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import derive_seed
from gmbench.spaces import Space


@dataclass
class Measurement:
    """What a metric found.

    Arguments:
        estimates: The numbers by key; a key names the metric and whatever changes its value.
        headline: For the headline metric: which of the keys ranks this model.
        per_point: For the headline metric: its value at every test point, (N,) float32, for paired tests.
        pictures: PNG files by name, without the suffix.
    """

    estimates: dict[str, Estimate] = field(default_factory=dict)
    headline: str = ""
    per_point: Any = None
    pictures: dict[str, bytes] = field(default_factory=dict)


class Draws:
    """Samples of a fitted model that several metrics share: drawn once, on a stream of their own.

    Arguments:
        model: A model with the capability `sample`.
        rng: The stream, on the model's device.
        space: Where they must lie; None where that was seen to.
    """

    def __init__(self, model: Any, rng: torch.Generator, space: Space | None = None) -> None:
        self._model, self._rng, self._space = model, rng, space
        self._drawn: Tensor | None = None
        self.seconds = 0.0

    @property
    def per_second(self) -> float | None:
        """Samples a second of wall time over all that was drawn; None where nothing was."""
        return len(self._drawn) / self.seconds if self._drawn is not None and self.seconds else None

    def __call__(self, num: int) -> Tensor:
        """The first `num` samples (num, ...), on the CPU; UserError if they are no points of the space."""
        missing = num - (0 if self._drawn is None else len(self._drawn))
        if missing > 0:
            begin = time.perf_counter()
            new = self._model.sample(missing, rng=self._rng).cpu()
            self.seconds += time.perf_counter() - begin
            if self._space is not None:
                try:
                    self._space.validate(new, "samples")
                except ValueError as error:
                    raise UserError(f"the model's sample gave what is no point of the task: {error}") from None
            self._drawn = new if self._drawn is None else torch.cat([self._drawn, new])
        assert self._drawn is not None
        return self._drawn[:num]


@dataclass
class Context:
    """What a metric is handed beside the model: its own random stream, and the shared samples."""

    rng: torch.Generator
    draws: Draws


class Task:
    """One task in one variant and track. A subclass gives `space`, `data` and `measure_<metric>` for each metric.

    Arguments:
        card: The task's manifest.
        variant: The variant's factors, complete.
        track: The name of the track.
    """

    space: Space

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        self.card = card
        self.variant = dict(variant)
        self.budget: dict[str, Any] = dict(card.tracks[track].measure)  # type: ignore[index]

    def data(self, seed: int) -> Data:
        """Training set number `seed`, the same for every model, with the truth attached for reference rows."""
        raise NotImplementedError

    def rng(self, *names: str | int) -> torch.Generator:
        """A stream fixed by the task's version and variant alone, for test points and the like."""
        factors = ",".join(f"{name}={value}" for name, value in self.variant.items())
        seed = derive_seed("task", self.card.name, self.card.version, factors, *names)
        return torch.Generator().manual_seed(seed)

    def measure(self, metric: str, model: Any, context: Context) -> Measurement:
        """Measures one metric of the card by the method `measure_<metric>(model, context)`.

        Raises:
            MissingCapability: The model cannot do what the metric needs; the message names it.
        """
        for needed in self.card.metrics[metric].requires:
            alternatives = needed.split("|")
            if not any(offers(model, capability) for capability in alternatives):
                raise MissingCapability(f"needs {' or '.join(alternatives)}, which the model does not offer")
        found: Measurement = getattr(self, f"measure_{metric}")(model, context)
        return found
