"""Warm starts: the finished runs that a model's card names as its inputs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmbench.errors import UserError
from gmbench.plugin import InputCard, TaskCard
from gmbench.record import RECORD, read_record
from gmbench.registry import Registry

if TYPE_CHECKING:
    from gmbench.plan import Plan, Request


def parent_plans(
    inputs: Mapping[str, InputCard], child: Request, task: TaskCard, registry: Registry, children: tuple[Request, ...]
) -> dict[str, Plan]:
    """The plan of each input, on the child's device, precision, threads and output folder.

    Arguments:
        child: The run that starts from them, with its variant and track named.
        task: The child's.
        children: The run that starts from `child`, and so on.
    """
    from gmbench.plan import make_plan

    return {
        name: make_plan(_request(wanted, child, task), registry, (*children, child)) for name, wanted in inputs.items()
    }


def _request(wanted: InputCard, child: Request, task: TaskCard) -> Request:
    here = wanted.task in ("", task.name)
    track: Any = wanted.track or child.track
    return replace(
        child,
        task=child.task if here else wanted.task,
        model=wanted.model,
        variant=wanted.variant or (child.variant if here else ""),
        track=track,
        seed=child.seed if wanted.seed is None else wanted.seed,
        overrides={**wanted.config, **wanted.tracks.get(track, {})},
    )


def require_parents(plans: Mapping[str, Plan], make: Callable[[str, Plan], None] | None) -> None:
    """Makes the inputs that have not finished with `make`, or says by which command each is made."""
    for name, plan in plans.items():
        path = plan.folder / RECORD
        try:
            status = read_record(path).status if path.exists() else ""
        except UserError as error:
            raise UserError(f"input {name!r}: {error}; this runs it again: {plan.command} --force") from None
        if status == "done":
            continue
        if make is None:
            out = plan.request.out
            command = plan.command + (f" --out {shlex.quote(str(out))}" if out != Path("runs") else "")
            if status == "failed":
                raise UserError(f"input {name!r} has failed; this runs it again: {command} --force")
            raise UserError(f"input {name!r} has not been run; --with-inputs runs it, or: {command}")
        make(name, plan)
