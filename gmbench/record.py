"""The record: the one immutable file that says what was run, what came out and what it cost."""

from __future__ import annotations

import array
import gzip
import hashlib
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmbench.errors import UserError
from gmbench.estimate import Estimate
from gmbench.plugin import explain

SCHEMA_VERSION: Literal[1] = 1
RECORD = "record.json"
POINTS = "points.f32.gz"
MAX_RECORD_BYTES = 10_000_000
MAX_POINTS = 10_000_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Environment(_Frozen):
    """Where a run took place."""

    gmbench: str
    commit: str
    dirty: bool
    python: str
    platform: str
    processor: str
    device: str
    driver: str
    threads: int
    precision: str
    packages: dict[str, str]


class Costs(_Frozen):
    """What a run has cost: timed, and therefore never a metric.

    `parameters` counts those that are fitted, not the copy of the best weights that a model may keep.
    """

    fit_wall_seconds: float = 0.0
    fit_process_seconds: float = 0.0
    measure_wall_seconds: float = 0.0
    measure_process_seconds: float = 0.0
    steps: int = 0
    examples: int = 0
    parameters: int = 0
    peak_memory_bytes: int = 0
    samples_per_second: float | None = None
    resumes: int = 0
    parents_process_seconds: float = 0.0
    over_ceiling: bool = False


class Artifact(_Frozen):
    """A file that lies beside the record in its run folder."""

    sha256: str
    bytes: int


class Record(_Frozen):
    """One run of one model on one task with one seed; see the field names. Hashes are SHA-256, hex."""

    schema_version: Literal[1] = SCHEMA_VERSION
    subject: Literal["run", "external", "samples"]
    task: str
    task_version: int
    variant: str
    track: str
    model: str
    model_version: int
    role: Literal["model", "reference"]
    config: dict[str, Any]
    card_config: bool
    seed: int
    fit_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    record_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    row_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    data_sha256: dict[str, str] = {}
    subject_sha256: str = ""
    source_sha256: dict[str, str] = {}
    metric_versions: dict[str, int]
    parents: dict[str, str] = {}
    row_parents: dict[str, str] = {}
    status: Literal["done", "failed"]
    reason: str = ""
    selection: Literal["last", "best_val"] = "last"
    headline: str = ""
    metrics: dict[str, Estimate] = {}
    unavailable: dict[str, str] = {}
    points_sha256: str = ""
    artifacts: dict[str, Artifact] = {}
    cost: Costs = Costs()
    environment: Environment
    command: str
    created: str

    def to_json(self) -> str:
        """The file's content: stable order, two spaces of indent, a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def read_record(path: Path) -> Record:
    """Reads a record; UserError says in one line what is wrong with the file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECORD_BYTES + 1)
        if len(content) > MAX_RECORD_BYTES:
            raise UserError(f"{path} is not a valid record: it has more than {MAX_RECORD_BYTES:,} bytes")
        return Record.model_validate_json(content)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{path} is not a valid record: {explain(error)}") from None


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: what identities are hashes of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path` and renames, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def pack_points(values: array.array[float]) -> bytes:
    """Float32 values, little-endian, gzipped without a timestamp."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return gzip.compress(values.tobytes(), mtime=0)


def read_points(path: Path) -> array.array[float]:
    """The per-test-point values of the headline, in the order of the test points."""
    values = array.array("f")
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_POINTS * values.itemsize + 1)  # a small file may unpack into a huge one
        if len(content) > MAX_POINTS * values.itemsize:
            raise ValueError(f"it holds more than {MAX_POINTS:,} values")
        values.frombytes(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if sys.byteorder == "big":
        values.byteswap()
    return values
