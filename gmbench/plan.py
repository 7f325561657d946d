"""From what a person asks for to a plan: plugins found, config resolved and checked, identity computed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from gmbench.errors import UserError, nearest
from gmbench.identity import run_identity
from gmbench.model import Config, Model
from gmbench.plugin import ModelCard, TaskCard, Variant, explain
from gmbench.record import canonical, short_hash
from gmbench.registry import Plugin, Registry, discover

DEVICES = ("cpu", "cuda")
# Only these: others would need the model, the data and the optimizers to pass through Fabric's own wrappers.
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Request:
    """One run as it is asked for.

    `task` is a name, `name:path`, or the path of a plugin folder; `model` a name, `name+preset`, `name:value`, or one.
    """

    task: str
    model: str
    variant: str = ""
    track: str = ""
    seed: int = 0
    device: str = "cpu"
    precision: str = "32-true"
    threads: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    out: Path = Path("runs")


@dataclass(frozen=True)
class Plan:
    """One run, fully decided. `fit_id` names what is fitted; `row_id` is the same without the seed."""

    request: Request
    task: Plugin
    model: Plugin
    model_class: type[Model]
    variant: Variant
    track: str
    name: str
    config: Config
    card_config: bool
    data_sha256: dict[str, str]
    inputs: dict[str, Plan]

    @property
    def task_card(self) -> TaskCard:
        assert isinstance(self.task.card, TaskCard)
        return self.task.card

    @property
    def model_card(self) -> ModelCard:
        assert isinstance(self.model.card, ModelCard)
        return self.model.card

    @property
    def parents(self) -> dict[str, str]:
        """The fit_id of each input; they are known before the inputs have run."""
        return {name: plan.fit_id for name, plan in self.inputs.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what is fitted, the seed apart."""
        return run_identity(
            task=self.task_card.name,
            task_version=self.task_card.version,
            variant=self.variant.name,
            track=self.track,
            model=self.model_card.name,
            model_version=self.model_card.version,
            config=self.config.model_dump(mode="json"),
            data=self.data_sha256,
            parents=self.parents,
            device=self.request.device.partition(":")[0],
            precision=self.request.precision,
            threads=self.request.threads,
        )

    @property
    def row_parents(self) -> dict[str, str]:
        """What stands for each input in `row_id`: its own row if it has this run's seed, or its fit if it is shared."""
        wanted = self.model_card.inputs_for(self.task_card.name, self.model_card.preset_of(self.request.model))
        return {name: one.row_id if wanted[name].seed is None else one.fit_id for name, one in self.inputs.items()}

    @property
    def row_id(self) -> str:
        return short_hash({**self.identity, "parents": self.row_parents})

    @property
    def fit_id(self) -> str:
        return short_hash({**self.identity, "seed": self.request.seed})

    @property
    def metric_versions(self) -> dict[str, int]:
        return {name: metric.version for name, metric in self.task_card.metrics.items()}

    @property
    def record_id(self) -> str:
        return short_hash({"fit": self.fit_id, "metrics": self.metric_versions})

    @property
    def folder(self) -> Path:
        """`<out>/<task>/<model>/<fit_id>`."""
        return self.request.out / self.task_card.name / self.name / self.fit_id

    @property
    def command(self) -> str:
        """The command that makes this run."""
        request = self.request
        words = ["gmbench", "run", "--task", request.task, "--variant", self.variant.name, "--track", self.track]
        words += ["--model", request.model, "--seed", str(request.seed)]
        for flag, value, default in (
            ("--device", request.device, "cpu"),
            ("--precision", request.precision, "32-true"),
            ("--threads", str(request.threads), "1"),
        ):
            words += [flag, value] if value != default else []
        for name, value in sorted(request.overrides.items()):
            words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        words += ["--with-inputs"] if self.inputs else []
        return shlex.join(words)


def make_plan(request: Request, registry: Registry | None = None, children: tuple[Request, ...] = ()) -> Plan:
    """Decides everything about a run and its inputs, importing their plugins but fitting nothing.

    Arguments:
        children: The run that starts from this one, if there is one, and the run that starts from that, and so on.

    Raises:
        UserError: The request names something that is not there or does not fit together; or the inputs lead back to
            what they are the inputs of.
    """
    registry = registry or discover()
    task, model = registry.task(request.task), registry.model(request.model)
    task_card, model_card = task.card, model.card
    assert isinstance(task_card, TaskCard) and isinstance(model_card, ModelCard)
    task_card.require_argument()
    preset = model_card.preset_of(request.model, task_card)
    variant = task_card.variant(request.variant or task_card.default_variant)
    track = task_card.choose_track(request.track, variant)
    if not model_card.applies_to(task_card):
        if task_card.space in model_card.accepts:
            why = f"it is only for {', '.join(model_card.only_tasks)}"
        else:
            why = f"it accepts {', '.join(model_card.accepts)} spaces, and the task's space is {task_card.space}"
        raise UserError(f"model {model_card.name} does not apply to task {task_card.name}: {why}")
    if request.seed < 0:
        raise UserError(f"seed {request.seed}: seeds are 0, 1, 2 …")
    check_device(request.device, request.precision)
    model_class = model.load()
    own = model_card.resolve(task_card.name, track, preset)
    given = model_card.argument_of(request.model)
    if twice := sorted(set(given) & set(request.overrides)):
        raise UserError(f"--model {request.model} and --set {twice[0]}=… both say what {twice[0]} is")
    config = make_config(model_class, {**own, **given, **request.overrides}, model_card)
    inputs: dict[str, Plan] = {}
    if wanted := model_card.inputs_for(task_card.name, preset):
        from gmbench.inputs import parent_plans

        resolved = replace(request, variant=variant.name, track=track)
        if resolved in children:
            raise UserError(f"the inputs of model {request.model} on {task_card.name} lead back to the same run")
        inputs = parent_plans(wanted, resolved, task_card, registry, children)
    from gmbench.data.local import checksums

    return Plan(
        request=request,
        task=task,
        model=model,
        model_class=model_class,
        variant=variant,
        track=track,
        name=f"{model_card.name}+{preset}" if preset else model_card.name,
        config=config,
        card_config=canonical(config.model_dump(mode="json"))
        == canonical(make_config(model_class, own, model_card).model_dump(mode="json")),
        data_sha256=checksums(task_card, variant),
        inputs=inputs,
    )


def make_config(model_class: type[Model], values: Mapping[str, Any], card: ModelCard) -> Config:
    """The model's typed config from `values`; an unknown name or a wrong value is a UserError in one line."""
    fields = model_class.Config.model_fields
    if unknown := sorted(set(values) - set(fields)):
        raise UserError(f"model {card.name} has no hyper-parameter {unknown[0]!r}: {nearest(unknown[0], fields)}")
    try:
        return model_class.Config.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"model {card.name}: {explain(error)}") from None


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """`--set name=value` words as a dict; values are JSON where they parse as such, else strings."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UserError(f"--set {setting!r} is not of the form name=value")
        try:
            overrides[name] = json.loads(text)
        except json.JSONDecodeError:
            overrides[name] = text
    return overrides


def check_device(device: str, precision: str) -> None:
    """UserError unless this machine has the device and the precision is one of Lightning Fabric's that we record."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (":" in device and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"no device is named {device!r}: {nearest(kind, DEVICES)}")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(number or 0) >= count:
            raise UserError(f"device {device} is not there: this machine has {count or 'no'} CUDA devices")
    if precision not in PRECISIONS:
        raise UserError(f"no precision is named {precision!r}: {nearest(precision, PRECISIONS)}")


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What `--dry-run` prints: what would be run where, and whether it has been."""
    return {
        "task": f"{plan.task_card.name} (version {plan.task_card.version}, {plan.task.folder})",
        "variant": plan.variant.name,
        "track": plan.track,
        "model": f"{plan.name} (version {plan.model_card.version}, {plan.model.folder})",
        "seed": plan.request.seed,
        "config": plan.config.model_dump(mode="json"),
        "card_config": plan.card_config,
        "metrics": list(plan.task_card.metrics),
        "parents": plan.parents,
        "inputs": {name: f"{_state(one)}: {one.command}" for name, one in plan.inputs.items()},
        "fit_id": plan.fit_id,
        "record_id": plan.record_id,
        "folder": str(plan.folder),
        "state": _state(plan),
        "command": plan.command,
    }


def _state(plan: Plan) -> str:
    from gmbench.record import RECORD, read_record

    path = plan.folder / RECORD
    return read_record(path).status if path.exists() else "started" if plan.folder.exists() else "not started"
