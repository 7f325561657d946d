"""Yahoo Answers without its training file; the card states the protocol."""

from __future__ import annotations

from pathlib import Path

from ..corpora.corpus_task import CorpusTask
from ..corpora.parts import Parts, held_out, read_part

NUM_HELD_OUT = 1000


def from_valid(validation: Path, test: Path) -> Parts:
    """The documents of the validation file to fit, 1000 of them held out, and the test file."""
    return Parts(*held_out(read_part(validation), NUM_HELD_OUT, "yahoo/from_valid"), read_part(test))


class YahooAnswers(CorpusTask):
    """Most documents of the validation file to fit, the others to choose by, the test file to measure."""

    reader = staticmethod(from_valid)
