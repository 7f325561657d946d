"""The Penn Treebank as Mikolov prepared it; the card states the protocol."""

from __future__ import annotations

from ..corpora.corpus_task import CorpusTask
from ..corpora.parts import three_files


class PennTreebank(CorpusTask):
    """Its three files as they are."""

    reader = staticmethod(three_files)
