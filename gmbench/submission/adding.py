"""Adding validated runs to the leaderboards' records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmbench.errors import UserError
from gmbench.record import POINTS, RECORD, Record, write_atomically
from gmbench.registry import Registry, discover
from gmbench.submission.validation import validate_run


def add_runs(folders: Sequence[Path], root: Path, registry: Registry | None = None) -> list[Path]:
    """Copies the records of run folders, and their per-point values, to where the leaderboards are made from.

    Everything is validated before anything is written.

    Arguments:
        root: The folder `leaderboards` of a checkout.

    Returns:
        The records' new paths, `<root>/records/<task>/<model>/<fit_id>.json`.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: --to names the folder 'leaderboards' of a checkout")
    registry = registry or discover()
    validated = [(folder, validate_run(folder, registry)) for folder in folders]
    written = []
    for folder, record in validated:
        path = record_path(root, record)
        if record.points_sha256:
            write_atomically(path.with_suffix(f".{POINTS}"), (folder / POINTS).read_bytes())
        write_atomically(path, (folder / RECORD).read_bytes())
        written.append(path)
    return written


def record_path(root: Path, record: Record) -> Path:
    """Where a record stands under `root`; its parts were checked against the cards, and are no paths."""
    return root / "records" / record.task / record.model / f"{record.fit_id}.json"
