"""The Python side of `gmbench run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmbench import runner
from gmbench.plan import Request
from gmbench.record import Record


def run(
    task: str,
    model: str,
    *,
    variant: str = "",
    track: str = "",
    seed: int = 0,
    device: str = "cpu",
    precision: str = "32-true",
    threads: int = 1,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    options: runner.Options | None = None,
) -> Record:
    """Fits a model to a task, measures it and records the result; a finished run's record is read back.

    Arguments:
        task: A task's name, `text_file:PATH`, or the path of its plugin folder.
        model: A model's name, `name+preset`, `name:value`, or the path of its plugin folder.
        variant: Factors such as `lattice=4x4,sigma=0.2`; the task's default where empty.
        track: `smoke`, `small`, `medium` or `paper`; the task's default where empty.
        overrides: Hyper-parameters by name, over the card's.
        out: Where run folders are made.

    Example:
        >>> record = gmbench.run("ising", "independent_bits", variant="lattice=4x4", track="smoke")  # doctest: +SKIP
        >>> record.metrics[record.headline].value  # doctest: +SKIP
    """
    request = Request(
        task, model, variant, track, seed, device, precision, threads, dict(overrides or {}), Path(out)
    )  # fmt: skip
    return runner.run(request, options)
