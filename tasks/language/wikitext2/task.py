"""WikiText-2 without its training file; the card states the protocol."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from gmbench.errors import UserError

from ..corpora.corpus_task import CorpusTask
from ..corpora.parts import Parts, read_part

TITLE = re.compile(r" = [^=]+ = ")  # of an article; the titles of its sections have more of the signs
SHARE = 0.9  # of the validation file's lines, which are trained on, up to the next article


def by_articles(validation: Path, test: Path) -> Parts:
    """The first articles of the validation file as training text, its last tenth as validation text."""
    part = read_part(validation)
    num = len(part.lines)
    titles = (row for row in range(int(SHARE * num), num) if TITLE.fullmatch(part.lines[row]))
    if (begin := next(titles, None)) is None:
        raise UserError(f"{validation}: no article begins in the last tenth of its {num} lines")
    return Parts(part.take(torch.arange(begin)), part.take(torch.arange(begin, num)), read_part(test))


class WikiText2(CorpusTask):
    """Articles of the validation file to fit and to choose by, the test file to measure."""

    reader = staticmethod(by_articles)
