"""A folder of records that no run has made, and the small plugins that they are of."""

from __future__ import annotations

import array
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gmbench.consistency import identity_of
from gmbench.estimate import Estimate, Kind
from gmbench.leaderboard.collect import POINTS_SUFFIX, Entry, Row
from gmbench.record import Costs, Environment, Record, pack_points, sha256_of, short_hash
from gmbench.registry import Registry, discover

TASK = """
kind = "task"
name = "toy_task"
version = 1
summary = "A task of this test"
entry = "task:Toy"
licence = "Apache-2.0"
modality = "discrete"
space = "binary"
default_variant = "side=left"
default_track = "small"
published = "published.toml"

[protocol]
num_test = 1000

[metrics.gap]
summary = "what ranks"
direction = "lower"
unit = "nats"
headline = true
null = 0.0

[metrics.nll]
summary = "likelihoods"

[metrics.distance]
summary = "of samples"

[[variants]]
name = "side=left"
tracks = ["smoke", "small"]

[[variants]]
name = "side=right"
tracks = ["smoke", "small"]

[tracks.smoke]
summary = "for tests"
ceiling_minutes = 1.0

[tracks.small]
summary = "a minute"
ceiling_minutes = 2.0
"""
PUBLISHED = """
[[row]]
model = "Somebody's <b>model</b>"
variant = "side=left"
metric = "gap"
value = 20.5461
source = "Nobody | 1999"

[[left_out]]
model = "slow"
variant = "side=left"
track = "small"
step_seconds = 2.5
num_steps = 1200
note = "of a <i>deep</i> network"
"""
MODEL = """
kind = "model"
name = "{name}"
version = 1
summary = "A model of this test"
entry = "model:Toy"
family = "{family}"
role = "{role}"
licence = "Apache-2.0"
accepts = ["binary"]
capabilities = ["sample"]

[config]
rate = 0.5

[presets.slow]
summary = "slower"
config = {{ rate = 0.1 }}
"""
MODELS = {"alpha": "energy", "beta": "energy", "gamma": "autoregressive", "delta": "latent"}


@dataclass
class Folder:
    """A leaderboards folder under construction."""

    root: Path
    plugins: Path

    def registry(self) -> Registry:
        return discover()

    def add(self, model: str, seed: int, value: float | None, **changes: Any) -> Entry:
        """Writes one record; see `record_of`."""
        points = changes.pop("points", None)
        record = record_of(model, seed, value, **changes)
        path = self.root / "records" / record.task / record.model / f"{record.fit_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if points is not None:
            where = path.with_name(path.stem + POINTS_SUFFIX)
            where.write_bytes(pack_points(array.array("f", points)))
            record = record.model_copy(update={"points_sha256": sha256_of(where)})
        path.write_text(record.to_json(), encoding="utf-8")
        return Entry(record, path)

    def row(self, model: str, values: Sequence[float], **changes: Any) -> None:
        for seed, value in enumerate(values):
            self.add(model, seed, value, **changes)


def record_of(
    model: str,
    seed: int,
    value: float | None,
    *,
    kind: Kind = "unbiased",
    stderr: float | None = 0.0,
    headline: str = "gap.exact",
    metrics: dict[str, Estimate] | None = None,
    environment: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A valid record of one run; `value` None leaves out the headline."""
    about: dict[str, Any] = {
        "subject": "run",
        "task": "toy_task",
        "task_version": 1,
        "variant": "side=left",
        "track": "small",
        "model": model,
        "model_version": 1,
        "role": "model",
        "config": {"rate": 0.1 if model.endswith("+slow") else 0.5},
        "card_config": True,
        "metric_versions": {"gap": 1, "nll": 1, "distance": 1},
        "status": "done",
        "cost": Costs(fit_process_seconds=12.3, parameters=12345, samples_per_second=1234.5),
    }
    about |= changes
    where = {"commit": "c", "dirty": False, "python": "3.11", "platform": "p", "processor": "p", "driver": "",
             "device": "cpu", "threads": 1, "precision": "32-true", "packages": {}, "gmbench": "0"}  # fmt: skip
    where |= environment or {}
    found = dict(metrics or {})
    if value is not None and about["status"] == "done":
        note = "" if stderr is not None else "none"
        found[headline] = Estimate(value=value, stderr=stderr, n=1000, kind=kind, note=note)
    blank = {"row_id": "0" * 12, "fit_id": "0" * 12, "record_id": "0" * 12}
    record = Record(
        **{
            **blank,
            "seed": seed,
            "headline": headline if value is not None else "",
            "metrics": found,
            "environment": Environment(**where),
            "command": "gmbench run",
            "created": "2026-01-01T00:00:00+00:00",
            **about,
        }
    )
    identity = identity_of(record)
    fit_id = short_hash({**identity, "seed": seed})
    ids = {
        "row_id": short_hash(identity),
        "fit_id": fit_id,
        "record_id": short_hash({"fit": fit_id, "metrics": record.metric_versions}),
    }
    return record.model_copy(update={name: value for name, value in ids.items() if name not in changes})


class PointsEntry(Entry):
    """An entry whose test points are given, not read."""

    points: Any = None


def row_of(model: str, values: Sequence[float], points: Sequence[Sequence[float]] | None = None, **changes: Any) -> Row:
    """A row in memory: one value a seed and, where given, one list of test points a seed."""
    entries: list[Entry] = []
    for seed, value in enumerate(values):
        record = record_of(model, seed, value, **changes)
        if points is None:
            entries.append(Entry(record, Path("records/toy_task/m/x.json")))
        else:
            entry = PointsEntry(record, Path("records/toy_task/m/x.json"))
            object.__setattr__(entry, "points", array.array("f", points[seed]))
            entries.append(entry)
    return Row(model, entries)


@pytest.fixture(name="row_of", scope="session")
def _row_of() -> Callable[..., Row]:
    return row_of


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins, the only one in $GMBENCH_PATH."""
    folder = tmp_path / "plugins"
    manifests = {"toy_task": TASK}
    for name, family in MODELS.items():
        manifests[name] = MODEL.format(name=name, family=family, role="model")
    manifests["omniscient"] = MODEL.format(name="omniscient", family="reference", role="reference")
    for name, manifest in manifests.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "plugin.toml").write_text(manifest)
        (folder / name / ("task.py" if name == "toy_task" else "model.py")).write_text("class Toy:\n    rate = 1\n")
    (folder / "toy_task" / "published.toml").write_text(PUBLISHED)
    monkeypatch.setenv("GMBENCH_PATH", str(folder))
    return folder


@pytest.fixture
def boards(tmp_path: Path, plugins: Path) -> Folder:
    """An empty leaderboards folder whose records are of the plugins in `plugins`."""
    return Folder(tmp_path / "leaderboards", plugins)


@pytest.fixture
def realistic(boards: Folder) -> Folder:
    """Four models, a preset, a reference row, two variants, five seeds, points: something to look at."""
    rng = random.Random(0)
    for variant in ("side=left", "side=right"):
        luck = [rng.gauss(0, 0.02) for _ in range(5)]
        noise = [rng.gauss(0, 1.0) for _ in range(1000)]
        levels = {"alpha": 0.2, "beta": 0.201, "gamma": 0.5, "delta": 0.9, "alpha+slow": 0.35, "omniscient": 0.0}
        for model, level in levels.items():
            for seed in range(5):
                value = level + luck[seed] + rng.gauss(0, 0.004)
                points = [value + each * (level + 0.1) for each in noise]
                value = math.fsum(points) / len(points)
                own = model == "gamma"
                names = ["exact"] if own else ["gfn.traj20", "ebm.is2^20"] if model == "delta" else ["ebm.is2^20"]
                metrics = {f"nll.{name}": Estimate(value=20 + value, stderr=0.1) for name in names}
                metrics["nll.floor"] = Estimate(value=20.0, kind="exact")
                for name in ("exp_hamming.bw0.1", "plane.bw0.2", "plane.bw0.5"):
                    metrics[f"distance.{name}"] = Estimate(value=1e-4 * rng.random(), stderr=2e-5)
                metrics["ess"] = Estimate(value=0.01, kind="lower_bound", stderr=0.001)
                boards.add(
                    model, seed, value, points=points, variant=variant, stderr=0.03, headline=f"gap.{names[0]}",
                    kind="upper_bound" if model == "delta" else "unbiased",
                    metrics=metrics, role="reference" if model == "omniscient" else "model",
                    unavailable={} if own else {"distance": "needs sample"},
                )  # fmt: skip
    boards.add("beta", 7, None, status="failed", reason="loss of stage 'fit' is not a finite number at step 12")
    return boards
