"""Files of real data, always checked: the user's own, in the folder $GMBENCH_DATA names, or downloaded into a cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from gmbench.errors import UserError
from gmbench.plugin import DataFile, OwnFile, TaskCard, Variant
from gmbench.record import sha256_of

Status = Literal["ok", "missing", "damaged"]


def checksums(card: TaskCard, variant: Variant) -> dict[str, str]:
    """The SHA-256 of every file that a variant needs by path: part of a run's identity."""
    return {file.path: file.sha256 for file in card.data if file.needed_by(variant.factors)}


def file_of(card: TaskCard, path: str) -> DataFile:
    """The file of a task's card with that path inside the data folder."""
    return next(file for file in card.data if file.path == path)


def cache_folder() -> Path:
    """Where downloads are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("gmbench"))


def locate(file: DataFile) -> Path:
    """Where the file is, in one of its forms, or would be put by a download."""
    return _located(file)[0]


def _located(file: DataFile) -> tuple[Path, str]:
    """The place of the file, and the SHA-256 that it must have there."""
    if isinstance(file, OwnFile):
        return file.place, file.sha256
    local = os.environ.get("GMBENCH_DATA")
    folders = [*([Path(local).expanduser()] if local else []), cache_folder()]
    places = [(folder / path, expected) for folder in folders for path, expected in file.forms.items()]
    return next((place for place in places if place[0].exists()), places[-1])


def status(file: DataFile) -> Status:
    """Whether the file is there with the right content."""
    path, expected = _located(file)
    if not path.is_file():
        return "missing"
    return "ok" if sha256_of(path) == expected else "damaged"


def fetch(file: DataFile) -> Path:
    """The file, checked; downloaded first where it is missing and its address is known.

    Raises:
        UserError: It is missing and cannot be downloaded, or its content is not what the card says.
    """
    path, expected = _located(file)
    if isinstance(file, OwnFile):
        if not path.is_file() or sha256_of(path) != expected:
            raise UserError(f"{path} was changed or removed after the run was planned: the same command plans it anew")
        return path
    if not path.is_file():
        if not file.url:
            raise UserError(f"{file.path} is missing and has no address: {_where_to_put_it()}")
        _download(file, path, expected)
    if (found := sha256_of(path)) != expected:
        raise UserError(f"{path} is damaged: SHA-256 {found[:12]}… where {expected[:12]}… is expected; remove it")
    return path


def _download(file: DataFile, path: Path, expected: str) -> None:
    import pooch

    try:
        # pooch downloads to a temporary file and moves it only when the checksum is right.
        pooch.retrieve(
            file.url, known_hash=f"sha256:{expected}", path=path.parent, fname=path.name, progressbar=False
        )
    except ValueError as error:
        raise UserError(f"{file.url}: the download is damaged ({str(error).splitlines()[0]})") from None
    except Exception as error:  # requests raises a family of its own
        raise UserError(
            f"{file.path} could not be downloaded from {file.url} ({type(error).__name__}): {_where_to_put_it()}"
        ) from None


def _where_to_put_it() -> str:
    named = os.environ.get("GMBENCH_DATA")
    state = "not set" if not named else named if Path(named).expanduser().is_dir() else f"{named}, which is no folder"
    return f"put it into the folder that $GMBENCH_DATA names (now: {state}), or into {cache_folder()}"
