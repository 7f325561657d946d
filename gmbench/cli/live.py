"""Progress on standard error: one live line a stage on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from gmbench.progress import LogLines, Progress

logger = logging.getLogger("gmbench")


class Live:
    """One line a stage: name, bar, steps, rate, remaining time and the latest values."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True, min_width=8)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            # What is left of the line goes to the values.
            TextColumn("{task.fields[values]}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            expand=True,
            refresh_per_second=4,  # a refresh takes milliseconds from the training thread
        )
        self._line: TaskID | None = None
        self._begun, self._begun_at = 0.0, 0

    def stage(self, name: str, total: int, done: int) -> None:
        self._bars.start()
        self._line = self._bars.add_task(name, total=total, completed=done, rate="", values="")
        self._begun, self._begun_at = time.monotonic(), done

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        assert self._line is not None
        rate = (done - self._begun_at) / max(time.monotonic() - self._begun, 1e-9)
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._bars.update(self._line, completed=done, rate=f"{rate:.1f}/s", values=shown)

    def message(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


class _Printed(logging.Handler):
    """Log records through a console, so that they do not tear a live line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """Progress for one command; the package's log records go the same way."""
    console = Console(file=sys.stderr)
    handler, level = _Printed(console), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    progress: Progress = Live(console) if console.is_terminal else LogLines()
    try:
        yield progress
    finally:
        progress.close()
        logger.removeHandler(handler)
        logger.setLevel(level)
