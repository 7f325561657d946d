"""A small text of our own, always the same, for checks of the task without a file."""

from __future__ import annotations

import hashlib

NUM_SENTENCES = 600
_NOUNS = ("cat", "dog", "sailor", "garden", "river", "letter", "window", "engine", "mountain", "teacher")
_ADJECTIVES = ("old", "small", "quiet", "green", "strange", "heavy")
_VERBS = ("sees", "finds", "follows", "paints", "forgets", "remembers", "leaves")
_PLACES = ("near", "behind", "above", "without")


def default_text() -> list[str]:
    """Sentences of 5 to 12 words from a grammar without recursion; a hash of a sentence's number chooses its rules."""
    return [_sentence(hashlib.sha256(f"default text/{number}".encode()).digest()) for number in range(NUM_SENTENCES)]


def _sentence(choices: bytes) -> str:
    words = [*_thing(choices[:3]), _VERBS[choices[3] % len(_VERBS)], *_thing(choices[4:7])]
    if choices[7] % 3 == 0:
        words += [_PLACES[choices[8] % len(_PLACES)], *_thing(choices[9:12])]
    return " ".join(words)


def _thing(choices: bytes) -> list[str]:
    article = ("the", "a")[choices[0] % 2]
    adjective = [_ADJECTIVES[choices[1] % len(_ADJECTIVES)]] if choices[1] % 4 == 0 else []
    return [article, *adjective, _NOUNS[choices[2] % len(_NOUNS)]]
