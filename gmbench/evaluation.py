"""Measuring what gmbench did not fit: a model that was trained elsewhere, or a file of samples."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import torch

from gmbench.errors import UserError
from gmbench.foreign import FixedDraws, GivenSamples, adapt, digest, read_samples
from gmbench.identity import external_identity
from gmbench.measuring import Measured, measure
from gmbench.model import Likelihood
from gmbench.plugin import NAME_PATTERN, TaskCard, Variant
from gmbench.progress import Progress
from gmbench.provenance import environment
from gmbench.randomness import stream
from gmbench.record import RECORD, Costs, Record, canonical, read_record, short_hash
from gmbench.recording import write_record
from gmbench.registry import Plugin, discover
from gmbench.source import source_digest
from gmbench.task import Task

Subject = Literal["external", "samples"]


def evaluate(
    model: Any,
    *,
    task: str,
    variant: str = "",
    track: str = "",
    name: str = "external",
    seed: int = 0,
    likelihood: Likelihood | None = None,
    out: str | Path = "runs",
    progress: Progress | None = None,
) -> Record:
    """Measures a model that was trained elsewhere and records the result with the subject `external`.

    Arguments:
        model: Any object with some of the capability methods of `gmbench.model`: `sample(num)`, `log_prob(x)`,
            `token_log_prob(x)`, `score_text(texts)`, `energy(x)`, `encode(x)`, … `sample` and `log_prob` may take a
            keyword `rng` (a torch.Generator). What x is, the task's space says: `gmbench.spaces`.
        task: A task's name, or the path of its plugin folder.
        track: The budget with which is measured.
        name: What the model is called in the record; no name of a plugin.
        likelihood: What `log_prob` is, where the model has no attribute `likelihood`: exact unless told otherwise.
        out: Where the record's folder is made.

    Example:
        >>> class Fair:
        ...     def sample(self, num):
        ...         return torch.randint(2, (num, 16)).float()
        >>> gmbench.evaluate(Fair(), task="ising", variant="lattice=4x4")  # doctest: +SKIP
    """
    setting = _setting(task, variant, track, name)
    subject = adapt(model, setting.task.space, likelihood)
    found = measure(setting.task, subject, seed, progress=progress)
    _require_results(found, f"the {type(model).__name__}", setting.card)
    parameters = sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else 0
    sha256 = digest(model) or _digest_of_results(found)
    cost = Costs(parameters=parameters)
    return _write(setting, found, "external", name=name, seed=seed, out=Path(out), sha256=sha256, cost=cost)


def score(
    samples: str | Path,
    *,
    task: str,
    variant: str = "",
    track: str = "",
    name: str = "samples",
    seed: int = 0,
    out: str | Path = "runs",
    progress: Progress | None = None,
) -> Record:
    """Measures a .npy or .npz file of samples by the metrics that need nothing else, with the subject `samples`.

    Arguments:
        samples: The file; its array `samples`, or its only array, has one point a row.

    Raises:
        UserError: The file holds no points of the task's space, or too few for every metric; nothing is recorded.
    """
    setting = _setting(task, variant, track, name)
    points = read_samples(Path(samples), setting.task.space)
    # Files often hold chains or sorted points, and metrics take groups of rows for independent draws.
    shuffled = points[torch.randperm(len(points), generator=stream("measure/draws", seed))]
    found = measure(setting.task, GivenSamples(), seed, draws=FixedDraws(shuffled), progress=progress)
    _require_results(found, str(samples), setting.card)
    words = ["gmbench", "score", "--task", task, "--variant", setting.variant.name, "--track", setting.track]
    words += ["--samples", str(samples), "--name", name]
    return _write(
        setting, found, "samples", name=name, seed=seed, out=Path(out), sha256=digest(points),
        cost=Costs(), command=shlex.join(words),
    )  # fmt: skip


class _Setting:
    """A task with its variant and track chosen, and the instance that measures."""

    def __init__(self, plugin: Plugin, variant: Variant, track: str) -> None:
        assert isinstance(plugin.card, TaskCard)
        self.plugin, self.card, self.variant, self.track = plugin, plugin.card, variant, track
        self.task: Task = plugin.load()(plugin.card, variant.factors, track)


def _setting(task: str, variant: str, track: str, name: str) -> _Setting:
    registry = discover()
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"name {name!r}: lower-case letters, digits and underscores, a letter first")
    if name in registry.models:
        raise UserError(f"{name!r} is the name of a plugin, whose results these are not: give another name")
    plugin = registry.task(task)
    registry.refuse_namesake(plugin)
    assert isinstance(plugin.card, TaskCard)
    plugin.card.require_argument()
    chosen = plugin.card.variant(variant or plugin.card.default_variant)
    return _Setting(plugin, chosen, plugin.card.choose_track(track, chosen))


def _require_results(found: Measured, subject: str, card: TaskCard) -> None:
    if not found.merged.estimates:
        reasons = "; ".join(f"{name} {reason}" for name, reason in found.unavailable.items())
        raise UserError(f"no metric of {card.name} can measure {subject}: {reasons}")


def _digest_of_results(found: Measured) -> str:
    """SHA-256 of what was measured: the identity of a subject whose state is not known."""
    values = {key: estimate.model_dump_json() for key, estimate in found.merged.estimates.items()}
    points = found.merged.per_point
    return hashlib.sha256(canonical([values, "" if points is None else digest(points.float())]).encode()).hexdigest()


def _write(
    setting: _Setting,
    found: Measured,
    subject: Subject,
    *,
    name: str,
    seed: int,
    out: Path,
    sha256: str,
    cost: Costs,
    command: str = "",
) -> Record:
    card = setting.card
    identity = external_identity(
        subject, card.name, card.version, setting.variant.name, setting.track, name, sha256
    )  # fmt: skip
    fit_id = short_hash({**identity, "seed": seed})
    versions = {metric: one.version for metric, one in card.metrics.items()}
    folder = out / card.name / name / fit_id
    if (folder / RECORD).exists():
        earlier = read_record(folder / RECORD)
        # Equal weights do not make equal models: two classes may share them, or an attribute may differ.
        if earlier.metric_versions == versions and earlier.metrics != found.merged.estimates:
            raise UserError(f"{folder} holds other results of a {name} with the same weights: another name keeps both")
    return write_record(
        folder,
        card,
        found,
        cost,
        subject=subject,
        variant=setting.variant.name,
        track=setting.track,
        model=name,
        model_version=1,
        role="model",
        config={},
        card_config=False,
        seed=seed,
        fit_id=fit_id,
        record_id=short_hash({"fit": fit_id, "metrics": versions}),
        row_id=short_hash(identity),
        subject_sha256=sha256,
        source_sha256={"task": source_digest(setting.plugin)},
        status="done",
        environment=environment("cpu", "32-true", torch.get_num_threads()),
        command=command,
    )
