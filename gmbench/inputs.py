"""Warm starts: the finished runs that a model's card names as its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gmbench.errors import UserError
from gmbench.plugin import ModelCard
from gmbench.record import RECORD, read_record
from gmbench.registry import Registry

if TYPE_CHECKING:
    from gmbench.plan import Plan, Request


def parent_plans(card: ModelCard, request: Request, registry: Registry) -> dict[str, Plan]:
    """The plan of each input, with the child's seed, device, precision, threads and output folder."""
    from gmbench.plan import make_plan

    return {
        name: make_plan(
            replace(request, task=wanted.task, model=wanted.model, track=wanted.track, variant="", overrides={}),
            registry,
        )
        for name, wanted in card.inputs.items()
    }


def find_parents(card: ModelCard, request: Request, registry: Registry) -> dict[str, str]:
    """The fit_id of each input; they are known before the inputs have run."""
    return {name: plan.fit_id for name, plan in parent_plans(card, request, registry).items()}


def require_parents(plans: dict[str, Plan], make: Callable[[Plan], None] | None) -> None:
    """Makes the inputs that have not finished with `make`, or says by which command each is made."""
    for name, plan in plans.items():
        path = plan.folder / RECORD
        if path.exists() and read_record(path).status == "done":
            continue
        if make is None:
            raise UserError(f"input {name!r} has not been run; --with-inputs runs it, or: {plan.command}")
        make(plan)
