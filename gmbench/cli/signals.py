"""Ctrl-C: the first asks the run to stop where it can resume, the second ends it at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a signal has asked the run to stop; it is called as the trainer's `should_stop`."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping where the run can resume; once more ends it at once", file=sys.stderr)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within it, SIGINT and SIGTERM set the flag of the Stop that it gives."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop.handle) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
