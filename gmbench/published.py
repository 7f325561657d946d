"""Published numbers: `published.toml` beside a task's manifest; they are quoted with their source and never ranked."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gmbench.errors import UserError
from gmbench.plugin import TaskCard, explain

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


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    row: list[PublishedRow] = []


def read_published(folder: Path, card: TaskCard) -> list[PublishedRow]:
    """The quoted numbers of the task in `folder`; an empty list where it has none."""
    path = folder / (card.published or PUBLISHED)
    if not path.is_file():
        return []
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).row
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None
