"""What a row is called: a model's plain name only where the record is of its card's current config and versions."""

from __future__ import annotations

import re
from typing import NamedTuple

from gmbench.errors import UserError
from gmbench.plugin import NAME_PATTERN, ModelCard, TaskCard
from gmbench.record import Record
from gmbench.registry import Registry


class Naming(NamedTuple):
    """A row's name, and whether its records are of the current versions of the task, its headline and the model."""

    name: str
    current: bool


def name_of(record: Record, task: TaskCard, registry: Registry) -> Naming:
    """The model's name, with what sets the record apart from the cards in brackets."""
    old: list[str] = []
    marks: list[str] = []
    if record.task_version != task.version:
        old.append(f"task version {record.task_version}")
    elif record.metric_versions.get(task.headline) != task.metrics[task.headline].version:
        old.append(f"version {record.metric_versions.get(task.headline)} of the headline metric")
    if record.subject != "run":
        marks.append(record.subject)
    elif (card := model_card(record, registry)) is None:
        marks.append("plugin not found here")
    elif record.model_version != card.version:
        old.append(f"version {record.model_version}")
    elif not _is_the_cards_own(record, card):
        marks.append(f"config {record.row_id[:6]}")
    brackets = ", ".join(marks + old)
    return Naming(f"{record.model} ({brackets})" if brackets else record.model, not old)


def model_card(record: Record, registry: Registry) -> ModelCard | None:
    """The card of the record's model; None where there is no such plugin here."""
    if record.subject != "run" or not re.fullmatch(NAME_PATTERN, record.model.partition("+")[0]):
        return None
    try:
        card = registry.model(record.model).card
    except UserError:
        return None
    assert isinstance(card, ModelCard)
    return card


def _is_the_cards_own(record: Record, card: ModelCard) -> bool:
    preset = record.model.partition("+")[2]
    if preset and preset not in card.presets:
        return False
    return record.card_config and record.config == card.resolve(record.task, record.track, preset)
