"""Whether a run folder holds what its record says: schema, identity, the cards it names, and the files beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gmbench.errors import UserError
from gmbench.identity import external_identity, run_identity
from gmbench.plugin import NAME_PATTERN, ModelCard, TaskCard
from gmbench.record import POINTS, RECORD, Record, read_record, sha256_of, short_hash
from gmbench.registry import Registry


def validate_run(folder: Path, registry: Registry) -> Record:
    """The record of a run folder, if it can stand in the leaderboards.

    Raises:
        UserError: The first thing that is wrong, in one line.
    """
    if not folder.is_dir():
        raise UserError(f"no run folder {folder}")
    record = read_record(folder / RECORD)
    if problem := next(iter(problems(record, registry)), ""):
        raise UserError(f"{folder / RECORD}: {problem}")
    for name, artifact in record.artifacts.items():
        if Path(name).name != name:
            raise UserError(f"{folder / RECORD}: artifact {name!r} is not a plain file name")
        _require_file(folder / name, artifact.sha256)
    if record.points_sha256:
        _require_file(folder / POINTS, record.points_sha256)
    return record


def problems(record: Record, registry: Registry) -> list[str]:
    """What is wrong with a record taken by itself and against the cards that discovery found."""
    for name in (record.task, *record.model.split("+", 1)):
        if not re.fullmatch(NAME_PATTERN, name):
            return [f"{name!r} is not a plugin name"]  # names become paths
    identity = identity_of(record)
    fit_id = short_hash({**identity, "seed": record.seed})
    found = []
    for name, stated, computed in (
        ("fit_id", record.fit_id, fit_id),
        ("row_id", record.row_id, short_hash(identity)),
        ("record_id", record.record_id, short_hash({"fit": fit_id, "metrics": record.metric_versions})),
    ):
        if stated != computed:
            found.append(f"{name} is {stated}, and the record's own fields give {computed}")
    if record.status == "done" and record.headline and record.headline not in record.metrics:
        found.append(f"the headline {record.headline!r} is not among the metrics")
    return found + _against_task(record, registry) + _against_model(record, registry)


def identity_of(record: Record) -> dict[str, Any]:
    """What the record's identities are hashes of, the seed apart."""
    model, _, _ = record.model.partition("+")
    if record.subject != "run":
        return external_identity(
            record.subject, record.task, record.task_version, record.variant, record.track, model, record.subject_sha256
        )
    return run_identity(
        task=record.task,
        task_version=record.task_version,
        variant=record.variant,
        track=record.track,
        model=model,
        model_version=record.model_version,
        config=record.config,
        data=record.data_sha256,
        parents=record.parents,
        device="cpu" if record.environment.device == "cpu" else "cuda",
        precision=record.environment.precision,
        threads=record.environment.threads,
    )


def _against_task(record: Record, registry: Registry) -> list[str]:
    card = registry.task(record.task).card
    assert isinstance(card, TaskCard)
    if record.task_version != card.version:
        return [f"made for version {record.task_version} of {card.name}, which is at version {card.version}"]
    try:
        variant = card.variant(record.variant)
    except UserError as error:
        return [str(error)]
    found = []
    if variant.name != record.variant:
        found.append(f"the variant is written {record.variant!r} where the card has {variant.name!r}")
    if record.track not in variant.tracks:
        found.append(f"the variant {variant.name} has no track {record.track}")
    if unknown := sorted(set(record.metric_versions) ^ set(card.metrics)):
        found.append(f"the card and the record differ in the metrics {', '.join(unknown)}")
    return found


def _against_model(record: Record, registry: Registry) -> list[str]:
    if record.subject != "run":
        return []
    name, _, preset = record.model.partition("+")
    card = registry.model(name).card
    assert isinstance(card, ModelCard)
    if record.model_version != card.version:
        return [f"made by version {record.model_version} of {card.name}, which is at version {card.version}"]
    found = []
    if record.role != card.role:
        found.append(f"the role is {record.role}, and the card of {card.name} says {card.role}")
    if preset and preset not in card.presets:
        found.append(f"{card.name} has no preset {preset!r}")
    return found


def _require_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing")
    if sha256_of(path) != sha256:
        raise UserError(f"{path} is not the file that the record describes: its SHA-256 differs")
