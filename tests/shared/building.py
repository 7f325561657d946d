"""What tests of models and tasks share: seeded generators, and models and tasks built as their cards say."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator

from gmbench.model import Model
from gmbench.plugin import ModelCard, TaskCard, read_manifest
from gmbench.registry import discover
from gmbench.spaces import Space

M = TypeVar("M", bound=Model)


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def card_of(model: type[Model]) -> ModelCard:
    """The card that lies beside the file of a model's class."""
    found = read_manifest(Path(inspect.getfile(model)).parent)
    assert isinstance(found, ModelCard)
    return found


def from_card(model: type[M], space: Space, task: str, preset: str = "", track: str = "smoke", **changes: Any) -> M:
    """The model as its card sets it for a task, but for `changes`, with the initial weights of seed 0."""
    config = model.Config(**(card_of(model).resolve(task, track, preset) | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(config, space)


def task_of(name: str, track: str = "small", **factors: str) -> Any:
    """A bundled task on the variant that the factors name."""
    plugin = discover().task(name)
    assert isinstance(plugin.card, TaskCard)
    return plugin.load()(plugin.card, factors, track)
