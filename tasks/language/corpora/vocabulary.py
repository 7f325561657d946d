"""The words that a corpus task knows, made of the training text alone, and how text becomes their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmbench.errors import UserError
from gmbench.spaces import TokenSequence

UNKNOWN = 2
SPECIAL = ("<pad>", "<eos>", "<unk>")  # ids 0, 1, 2; a word of the text that is written like the first two is a word


@dataclass(frozen=True)
class Vocabulary:
    """Ids of words: PAD 0, EOS 1, `<unk>` 2, then the words of the training text.

    Arguments:
        words: What every id is written as.
        knows_unknown: Whether the training text holds `<unk>`: a model cannot learn what it never sees.
    """

    words: tuple[str, ...]
    knows_unknown: bool

    def encode(self, text: Sequence[str], source: str) -> NDArray[np.int64]:
        """Ids of the words of a text, (len(text),); a word that is not known becomes `<unk>`.

        Raises:
            UserError: There are such words, and the training text has no `<unk>`.
        """
        ids = _Ids(self.words)
        found = np.fromiter(map(ids.__getitem__, text), np.int64, len(text))
        if not self.knows_unknown and ids.num_unknown:
            first = text[int((found == UNKNOWN).argmax())]
            raise UserError(
                f"{source}: {ids.num_unknown} of its {len(text)} words are not among the training text's, "
                f"{first!r} first, and that text has no {SPECIAL[UNKNOWN]} to stand for them: a smaller vocabulary "
                "leaves some of its own words out"
            )
        return found


class _Ids(dict[str, int]):
    """Ids by word, which count what they do not know. A word written like PAD or EOS is never one of these."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__((word, number) for number, word in enumerate(words) if number >= UNKNOWN)
        self.num_unknown = 0

    def __missing__(self, word: str) -> int:
        self.num_unknown += 1
        return UNKNOWN


def vocabulary_of(text: Iterable[str], size: int, source: str, *, closed: bool = False) -> Vocabulary:
    """The `size` - 3 most frequent words of a training text, the most frequent first, equals by the alphabet.

    Arguments:
        text: The training text, word by word; unknown words in it are written `<unk>`.
        size: How many ids there are, PAD, EOS and `<unk>` among them.
        source: What to call the text in a message.
        closed: Whether these must be all words of the text.

    Raises:
        UserError: The text has fewer words, or more of them and the vocabulary is closed.
    """
    counts = Counter(text)
    has_unknown = bool(counts.pop(SPECIAL[UNKNOWN], 0))
    kept = sorted(counts, key=lambda word: (-counts[word], word))[: size - len(SPECIAL)]
    expected = f"where {size - len(SPECIAL):,} are expected beside {', '.join(SPECIAL)}"
    if len(kept) < size - len(SPECIAL) or (closed and len(counts) > len(kept)):
        raise UserError(f"{source}: {len(counts):,} different words {expected}")
    return Vocabulary((*SPECIAL, *kept), knows_unknown=has_unknown or len(counts) > len(kept))


def open_vocabulary(text: Iterable[str], size: int, source: str) -> Vocabulary:
    """At most `size` - 3 words: those that the training text has twice or more, in the order of `vocabulary_of`.

    They are never all of its words: where none occurs once, the last in that order is left out. So the training text
    always holds `<unk>`, which stands for every word that is left out.

    Raises:
        UserError: No word is left to be known.
    """
    counts = Counter(text)
    has_unknown = bool(counts.pop(SPECIAL[UNKNOWN], 0))
    often = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))
    complete = len(often) == len(counts) and not has_unknown
    kept = often[: min(size - len(SPECIAL), len(often) - complete)]
    if not kept:
        raise UserError(
            f"{source}: none of its words can be known, since {len(often)} of {len(counts)} different ones occur twice "
            "or more, and one becomes <unk>: give a longer text"
        )
    return Vocabulary((*SPECIAL, *kept), knows_unknown=True)


class Words(Sequence[str]):
    """What the ids of a space are written as, read when somebody asks: to make a space needs no files.

    Arguments:
        size: How many there are.
        read: Gives them all.
    """

    def __init__(self, size: int, read: Callable[[], tuple[str, ...]]) -> None:
        self._size, self._read = size, read

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True  # without a look into the files
        return isinstance(other, (Words, tuple)) and len(other) == self._size and tuple(other) == tuple(self)

    def __hash__(self) -> int:
        return hash(self._size)

    def __deepcopy__(self, memo: object) -> Words:
        return self


assert (SPECIAL.index("<pad>"), SPECIAL.index("<eos>")) == (TokenSequence.PAD, TokenSequence.EOS)
