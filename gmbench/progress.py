"""Progress as the training loop and the runner report it; the command line shows it, other callers may ignore it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

logger = logging.getLogger("gmbench")


class Progress(Protocol):
    """What the harness calls; every method returns at once."""

    def stage(self, name: str, total: int, done: int) -> None:
        """A stage begins (or goes on after a resume) with `done` of `total` steps finished."""

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """`done` steps of the stage are finished; `values` are the latest logged scalars."""

    def message(self, text: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int, done: int) -> None: ...
    def advance(self, done: int, values: Mapping[str, float]) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class LogLines:
    """Plain lines through `logging`, at most one every `seconds` within a stage."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._name, self._total = "", 0
        self._begun, self._begun_at, self._last = 0.0, 0, 0.0

    def stage(self, name: str, total: int, done: int) -> None:
        self._name, self._total, self._begun_at = name, total, done
        self._begun = self._last = time.monotonic()
        self._shown = -1
        logger.info("%s", f"{name}: {total} steps" if total > 1 else name)

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        early = now - self._last < self._seconds and done < self._total
        # The last step of a stage may be reported twice; of a single step its beginning says enough.
        if early or self._total <= 1 or done == self._shown:
            return
        self._last, self._shown = now, done
        rate = (done - self._begun_at) / max(now - self._begun, 1e-9)
        left = (self._total - done) / max(rate, 1e-9)
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("%s: %d/%d  %.1f/s  %.0f s left  %s", self._name, done, self._total, rate, left, shown)

    def message(self, text: str) -> None:
        logger.info("%s", text)

    def close(self) -> None: ...
