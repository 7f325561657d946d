"""A small sample of the sentences of SNLI; the card states the protocol."""

from __future__ import annotations

from pathlib import Path

import torch

from ..corpora.corpus_task import CorpusTask
from ..corpora.parts import Part, Parts, three_files


def apart(train: Path, validation: Path, test: Path) -> Parts:
    """The three files, the last two without sentences of the first: the first line of all three is the same."""
    found = three_files(train, validation, test)
    known = set(found.train.lines)

    def unknown(part: Part) -> Part:
        return part.take(torch.tensor([row for row, line in enumerate(part.lines) if line not in known]))

    return Parts(found.train, unknown(found.validation), unknown(found.test))


class SNLISentences(CorpusTask):
    """Its three files, their common sentence in the training set alone."""

    reader = staticmethod(apart)
