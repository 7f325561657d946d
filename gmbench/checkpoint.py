"""Two generations of checkpoints, each written aside and renamed: a kill loses at most one interval."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from gmbench.errors import RunFailed

logger = logging.getLogger("gmbench")


class Checkpoints:
    """The checkpoints of one run, `checkpoint.pt` and the one before it, `checkpoint.previous.pt`, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._newest = folder / "checkpoint.pt"
        self._previous = folder / "checkpoint.previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Writes `state` (tensors, numbers, strings and containers of them) as the newest generation."""
        temporary = self._newest.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)  # half a file would keep a full disk full
            raise
        if self._newest.exists():
            self._newest.replace(self._previous)
        temporary.replace(self._newest)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state that can be read; None where nothing was ever saved.

        Raises:
            RunFailed: Every generation there is is damaged.
        """
        found = [path for path in (self._newest, self._previous) if path.exists()]
        for path in found:
            try:
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
                return state
            except Exception as error:  # a damaged file can raise almost anything
                logger.warning("%s is damaged (%s); trying the one before it", path, type(error).__name__)
        if found:
            raise RunFailed(f"every checkpoint in {found[0].parent} is damaged; --force starts the run again")
        return None

    def clear(self) -> None:
        """Removes what is there."""
        for path in (self._newest, self._previous):
            path.unlink(missing_ok=True)
