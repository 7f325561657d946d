"""`published.toml` beside a task's card: numbers quoted with their source and never ranked, and what was left out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gmbench.errors import UserError
from gmbench.plugin import TaskCard, Track, explain

PUBLISHED = "published.toml"


class PublishedRow(BaseModel):
    """One quoted number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    variant: str
    metric: str
    value: float
    source: str
    stderr: float | None = None
    note: str = ""


class LeftOut(BaseModel):
    """A model that was not run because it does not, or hardly, fit a track, with the measured time of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    variant: str
    track: Track
    step_seconds: Annotated[float, Field(gt=0)]
    """CPU time of a step of fitting, on one thread."""
    num_steps: Annotated[int, Field(ge=1)]
    """How many steps its protocol has."""
    note: str

    @property
    def minutes(self) -> float:
        """CPU time that all steps would take, were each as long as the measured ones."""
        return self.step_seconds * self.num_steps / 60


class Published(BaseModel):
    """What `published.toml` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: list[PublishedRow] = []
    left_out: list[LeftOut] = []


def read_published(folder: Path, card: TaskCard) -> Published:
    """What is quoted beside the results of the task in `folder`, and what was left out of them."""
    path = folder / (card.published or PUBLISHED)
    if not path.is_file():
        return Published()
    try:
        return Published.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
