"""Which runs one command asks for: several seeds, several variants."""

from __future__ import annotations

from gmbench.errors import UserError
from gmbench.plugin import TaskCard

ALL = "all"
MANY = 2**32  # what numpy and scikit-learn take


def parse_seeds(text: str) -> list[int]:
    """Seeds from `3`, `0..4` (both ends included), `0,2,5` or a mixture of these.

    Example:
        >>> parse_seeds("0..2,7")
        [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise UserError(f"--seed {text!r}: seeds are whole numbers from 0 on, written as 3, 0..4 or 0,2,5")
        begin, end = int(first), int(last if dots else first)
        if max(begin, end) >= MANY:
            raise UserError(f"--seed {text!r}: seeds are below {MANY:,}")
        chosen = range(begin, end + 1)
        if not chosen:
            raise UserError(f"--seed {text!r}: {part} is empty, the last seed comes before the first")
        seeds.extend(seed for seed in chosen if seed not in seeds)
    return seeds


def parse_variants(text: str, track: str, card: TaskCard) -> list[str]:
    """The variants that `--variant` names: one, or with `all` every one that has the track."""
    if text != ALL:
        return [text or card.default_variant]
    chosen = [variant.name for variant in card.variants if not track or track in variant.tracks]
    if not chosen:
        raise UserError(f"no variant of {card.name} has the track {track!r}")
    return chosen
