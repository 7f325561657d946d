"""`--task name:PATH`: the card of a task as it is for a file of the user's."""

from __future__ import annotations

import re
from pathlib import Path

from gmbench.data.text_lines import MAX_BYTES
from gmbench.errors import UserError
from gmbench.plugin import OwnFile, TaskCard
from gmbench.record import sha256_of

MAX_STEM = 32  # characters of a file's name that a variant's name repeats


def card_of_file(card: TaskCard, path: str) -> TaskCard:
    """The card with the file as its data, and one more factor in every variant, which says which content this is.

    The factor is the file's name and eight hex digits of its SHA-256: `context=stream,text=moby_dick-1a2b3c4d`. So a
    file that has changed is another variant, and one that was moved is the same.

    Arguments:
        card: Of a task with an `argument`.
        path: The file, from the working folder or absolute; `~` is the user's home.

    Raises:
        UserError: There is no such file, or it cannot be read or is too long.
    """
    place = _found(card, path)
    sha256 = _digest(place)
    own = OwnFile(path=card.argument, sha256=sha256, licence="the user's own", place=place)
    factor = f"{card.argument}={_stem(place) or card.argument}-{sha256[:8]}"
    variants = [one.model_copy(update={"name": f"{one.name},{factor}"}) for one in card.variants]
    default = f"{card.default_variant},{factor}"
    return card.model_copy(update={"data": [own], "variants": variants, "default_variant": default})


def _found(card: TaskCard, path: str) -> Path:
    form = f"--task {card.name}:PATH"
    if not path:
        raise UserError(f"{form} names no file: PATH is that of a {card.argument} of your own")
    try:
        place = Path(path).expanduser().absolute()
    except RuntimeError as error:  # a home that nobody has
        raise UserError(f"{form}: {path}: {error}") from None
    if not place.is_file():
        what = "a folder" if place.is_dir() else "no file to read twice" if place.exists() else f"no file {place}"
        raise UserError(f"{form}: {what if str(place) in what else f'{path} is {what}'}")
    return place


def _digest(place: Path) -> str:
    try:
        if place.stat().st_size > MAX_BYTES:  # before it takes minutes to read
            raise UserError(f"{place}: longer than {MAX_BYTES:,} bytes: give a part of it")
        return sha256_of(place)
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror})") from None


def _stem(place: Path) -> str:
    """The file's name as a part of a variant's: lower-case letters, digits and underscores, perhaps none."""
    name = Path(place.name.removesuffix(".gz")).stem
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:MAX_STEM].strip("_")
