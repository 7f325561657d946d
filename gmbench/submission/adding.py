"""Adding validated runs to the leaderboards' records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmbench.errors import UserError
from gmbench.record import POINTS, RECORD, Record, read_record, write_atomically
from gmbench.registry import Registry, discover
from gmbench.submission.validation import validate_run


def add_runs(folders: Sequence[Path], root: Path, registry: Registry | None = None) -> dict[Path, bool]:
    """Copies the records of run folders, and their per-point values, to where the leaderboards are made from.

    Everything is validated before anything is written. A record that is there already stays as it is, unless its
    metrics have other versions.

    Arguments:
        root: The folder `leaderboards` of a checkout.

    Returns:
        The records' paths, `<root>/records/<task>/<model>/<fit_id>.json`, each with whether it is new there.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: --to names the folder 'leaderboards' of a checkout")
    registry = registry or discover()
    chosen: dict[Path, Path] = {}
    for folder, record in zip(folders, _validated(folders, registry), strict=True):
        path = record_path(root, record)
        for other in (path, chosen.get(path, folder) / RECORD):
            _require_no_other(folder / RECORD, other)
        chosen[path] = folder
    added = {}
    for path, folder in chosen.items():
        content = (folder / RECORD).read_bytes()
        added[path] = not path.exists() or path.read_bytes() != content
        if read_record(folder / RECORD).points_sha256:
            write_atomically(path.with_suffix(f".{POINTS}"), (folder / POINTS).read_bytes())
        write_atomically(path, content)
    return added


def _validated(folders: Sequence[Path], registry: Registry) -> list[Record]:
    """The records of run folders; what is wrong with the first bad one, and which others are bad."""
    found, faults = [], {}
    for folder in folders:
        try:
            found.append(validate_run(folder, registry))
        except UserError as error:
            faults[folder] = str(error)
    if faults:
        first, *others = faults
        more = f" (and {len(others)} more are refused: {', '.join(map(str, others))})" if others else ""
        raise UserError(f"{faults[first]}{more}")
    return found


def _require_no_other(path: Path, there: Path) -> None:
    """Refuses a record where another result of the same id and metrics stands."""
    if not there.exists() or there.read_bytes() == path.read_bytes():
        return
    if read_record(there).record_id == read_record(path).record_id:
        raise UserError(f"{path}: {there} is another record of that id; remove it first if this one shall replace it")


def record_path(root: Path, record: Record) -> Path:
    """Where a record stands under `root`; its parts were checked against the cards, and are no paths."""
    return root / "records" / record.task / record.model / f"{record.fit_id}.json"
