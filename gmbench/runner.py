"""plan -> fit -> measure -> record: what `gmbench run` and the Python API do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from gmbench.errors import RunFailed, UserError
from gmbench.inputs import require_parents
from gmbench.measuring import Measured, measure
from gmbench.model import Data, Model
from gmbench.plan import Plan, Request, make_plan
from gmbench.progress import Progress, Silent
from gmbench.provenance import environment
from gmbench.randomness import derive_seed
from gmbench.record import RECORD, Costs, Record, read_record, write_atomically
from gmbench.recording import write_record
from gmbench.registry import Registry, discover
from gmbench.source import source_digest
from gmbench.task import Task
from gmbench.training import Cost, Diverged, Trainer

WEIGHTS = "model.safetensors"
FITTED = "fitted.json"
BEGUN = "begun.json"


@dataclass
class Options:
    """How a plan is carried out; nothing here changes a result."""

    progress: Progress = field(default_factory=Silent)
    should_stop: Callable[[], bool] = lambda: False
    force: bool = False
    remeasure: bool = False
    with_inputs: bool = False
    deterministic: bool = False
    registry: Registry | None = None


def run(request: Request, options: Options | None = None) -> Record:
    """Carries out one run, or returns the record of the finished one; an interrupted one goes on.

    Raises:
        UserError: The request is not possible.
        RunFailed: The run could not end and left no record; a run whose loss diverged returns a `failed` record.
    """
    options = options or Options()
    registry = options.registry or discover()
    return execute(make_plan(request, registry), options)


def execute(plan: Plan, options: Options) -> Record:
    """Carries out a plan under a lock on its folder, on the plan's number of threads."""
    registry = options.registry or discover()
    registry.refuse_namesake(plan.task)
    registry.refuse_namesake(plan.model)
    with _claimed(plan.folder), _threads(plan.request.threads), _determinism(options.deterministic):
        path = plan.folder / RECORD
        if options.force:
            _clear(plan.folder)
        made_by = _made_by(plan)
        if path.exists():
            record = _finished(path)
            if (record.record_id == plan.record_id and not options.remeasure) or record.status == "failed":
                changed = record.source_sha256 != made_by["source_sha256"]
                options.progress.message(
                    f"already {record.status}{', by code that has changed since' if changed else ''}: {path} "
                    "(--force runs it again)"
                )
                return record
        _require_same_code(plan, made_by["source_sha256"]["model"])
        parents = _parents(plan, options)
        try:
            task = make_task(plan)
            data = data_for(plan, task)
            model, fit_cost = _fit(plan, data, parents, options)
        except Diverged as error:
            return _write(plan, Measured(), _costs(error.cost), made_by, status="failed", reason=str(error))
        measured = measure(
            task, model, plan.request.seed, progress=options.progress, should_stop=options.should_stop
        )
        return _write(plan, measured, fit_cost, made_by)


def _made_by(plan: Plan) -> dict[str, Any]:
    """The fields of a record that say what code runs and where; asked before a run, since files change during one."""
    request = plan.request
    return {
        "source_sha256": {"task": source_digest(plan.task), "model": source_digest(plan.model)},
        "environment": environment(request.device, request.precision, request.threads),
    }


def _require_same_code(plan: Plan, model_sha256: str) -> None:
    """Refuses to go on with a fit that another state of the model's code has begun."""
    path = plan.folder / BEGUN
    if not path.exists():
        write_atomically(path, json.dumps({"model": model_sha256}).encode())
    elif json.loads(path.read_bytes()).get("model") != model_sha256:
        raise UserError(
            f"the code of {plan.name} has changed since the run in {plan.folder} was begun: --force begins it again; "
            "a new version in its plugin.toml keeps both"
        )


def load_fitted(plan: Plan) -> Model:
    """The fitted model of a finished run, on the CPU, in evaluation mode."""
    model = new_model(plan)
    try:
        model.load_state_dict(load_file(plan.folder / WEIGHTS))
    except Exception as error:
        raise RunFailed(f"{plan.folder / WEIGHTS} is damaged ({type(error).__name__}); --force runs it again") from None
    return model.eval()


def _finished(path: Path) -> Record:
    try:
        return read_record(path)
    except UserError as error:
        raise RunFailed(f"{error}; --force runs it again, and without the file the fitted model is measured") from None


def _fit(plan: Plan, data: Data, parents: dict[str, Model], options: Options) -> tuple[Model, Costs]:
    weights, fitted = plan.folder / WEIGHTS, plan.folder / FITTED
    if _is_fitted(plan):
        model, cost = load_fitted(plan), Costs.model_validate_json(fitted.read_bytes())
        # Reference rows hold on to the truth, which is no tensor: they get it again.
        if data.truth is not None:
            model.stages(data)
        return model.to(plan.request.device), cost
    model = new_model(plan)
    for name, parent in parents.items():
        model.warm_start(name, parent)
    trainer = Trainer(
        folder=plan.folder,
        seed=plan.request.seed,
        device=plan.request.device,
        precision=plan.request.precision,
        progress=options.progress,
        should_stop=options.should_stop,
    )
    cost = _costs(
        trainer.fit(model, data),
        parameters=model.num_parameters,
        parents_process_seconds=_parents_cost(plan),
    )
    write_atomically(weights, save({name: t.contiguous() for name, t in model.state_dict().items()}))
    write_atomically(fitted, cost.model_dump_json().encode())
    trainer.clear()
    return model, cost


def _is_fitted(plan: Plan) -> bool:
    return (plan.folder / WEIGHTS).exists() and (plan.folder / FITTED).exists()


def _costs(spent: Cost, **further: Any) -> Costs:
    return Costs(
        fit_wall_seconds=spent.wall_seconds,
        fit_process_seconds=spent.process_seconds,
        steps=spent.steps,
        examples=spent.examples,
        peak_memory_bytes=spent.peak_memory_bytes,
        resumes=spent.resumes,
        **further,
    )


def new_model(plan: Plan) -> Model:
    """The model with its initial weights, drawn on the stream `init`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("init", plan.request.seed))
        return plan.model_class(plan.config, make_task(plan).space)


def make_task(plan: Plan) -> Task:
    """The plan's task in its variant and track."""
    task: Task = plan.task.load()(plan.task_card, plan.variant.factors, plan.track)
    return task


def data_for(plan: Plan, task: Task) -> Data:
    """The data of the plan's seed; the truth goes to reference rows only."""
    data = task.data(plan.request.seed)
    if plan.model_card.role == "reference":
        return data
    return replace(data, truth=None)


def _parents(plan: Plan, options: Options) -> dict[str, Model]:
    """The fitted models that the plan's starts from; none where it has been fitted, as before it is measured again."""
    if _is_fitted(plan):
        return {}

    def make(name: str, parent: Plan) -> None:
        options.progress.message(f"input {name}: {parent.command}")
        record = execute(parent, replace(options, force=False, remeasure=False))
        if record.status == "failed":
            raise RunFailed(f"the input {name}, {parent.name}, failed: {record.reason}")

    require_parents(plan.inputs, make if options.with_inputs else None)
    return {name: _fitted_input(name, parent) for name, parent in plan.inputs.items()}


def _fitted_input(name: str, parent: Plan) -> Model:
    try:
        return load_fitted(parent)
    except RunFailed as error:
        raise RunFailed(f"input {name!r}: {error}, of this command: {parent.command}") from None


def _parents_cost(plan: Plan) -> float:
    costs = [read_record(parent.folder / RECORD).cost for parent in plan.inputs.values()]
    return sum(cost.fit_process_seconds + cost.parents_process_seconds for cost in costs)


def _write(
    plan: Plan, measured: Measured, cost: Costs, made_by: dict[str, Any], *, status: str = "done", reason: str = ""
) -> Record:
    request = plan.request
    return write_record(
        plan.folder,
        plan.task_card,
        measured,
        cost,
        subject="run",
        variant=plan.variant.name,
        track=plan.track,
        model=plan.name,
        model_version=plan.model_card.version,
        role=plan.model_card.role,
        config=plan.config.model_dump(mode="json"),
        card_config=plan.card_config,
        seed=request.seed,
        fit_id=plan.fit_id,
        record_id=plan.record_id,
        row_id=plan.row_id,
        data_sha256=plan.data_sha256,
        parents=plan.parents,
        row_parents=plan.row_parents,
        status=status,
        reason=reason,
        command=plan.command,
        **made_by,
    )


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Holds the run folder: two processes with the same command must not write into it together."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}; --out names another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is carrying out this run in {folder}") from None
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise RunFailed(
                    f"cannot write into {folder}: {error.strerror}; the last checkpoint is kept, "
                    "and the same command resumes once there is room"
                ) from error
            raise
        finally:
            _remove_if_nothing_was_made(folder)


def _remove_if_nothing_was_made(folder: Path) -> None:
    """So that a run that failed at its very beginning is not taken for one that was begun."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {"lock", BEGUN}:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.name != "lock":
            path.unlink()
