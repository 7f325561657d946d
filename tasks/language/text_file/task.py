"""Any text file as a corpus; the card states the protocol."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor

from gmbench.data.local import locate
from gmbench.errors import UserError
from gmbench.model import offers
from gmbench.spaces import TokenSequence
from gmbench.task import Context, Measurement

from ..corpora.corpus import Recipe
from ..corpora.corpus_task import CorpusTask
from ..corpora.parts import Parts
from ..corpora.sequences import written
from ..corpora.units import of_sentences, of_stream, widths
from ..corpora.vocabulary import UNKNOWN
from ..likelihoods import SequenceLikelihood
from .splits import by_tens, in_order

MAX_PLACES = 1 << 27  # of all training sentences, padded: a GiB


class TextFile(CorpusTask):
    """The card's file, or a small text of our own where it has none, cut into three parts.

    Its space is that of the text: as many ids as words are known, and rows as wide as the longest training line.
    """

    @property
    def recipe(self) -> Recipe:
        reader: Callable[..., Parts] = in_order if self.streamed else by_tens
        return Recipe(reader, self.protocol["vocab_size"], False, self.protocol["unknown"], at_most=True)

    def make_space(self) -> TokenSequence:
        words = self.corpus.vocabulary.words
        if self.streamed:
            return TokenSequence(len(words), self.protocol["window"], ends=False, words=words)
        lengths = self.corpus.train.lengths
        longest = min(self.protocol["max_words"], int(lengths.max()))
        num_rows = int(((lengths + longest - 1) // longest).sum())
        if num_rows * (longest + 1) > MAX_PLACES:
            source = locate(self.card.data[0]) if self.card.data else "the default text"
            raise UserError(
                f"{source}: {num_rows:,} sentences in rows of {longest} words do not fit into memory: give a part "
                "of the text, or read it as one with --variant context=stream"
            )
        return TokenSequence(len(words), longest + 1, words=words)

    def measure_word_nats(self, model: Any, context: Context) -> Measurement:
        """The corpora's; its note says how much of the text the vocabulary covers, without which it means little."""
        found = super().measure_word_nats(model, context)
        share = float((self.test == UNKNOWN).sum()) / float(self.units.words.sum())
        covered = f"{share:.1%} of what is counted is <unk>; {self.space.vocab_size - UNKNOWN - 1:,} words are known"
        for key, one in found.estimates.items():
            own = "the file's own words, one blank between them" if key.endswith(".raw") else covered
            note = "; ".join(filter(None, (one.note, own)))
            found.estimates[key] = one.model_copy(update={"note": note})
        return found

    def _scores_anew(self, model: Any, context: Context) -> list[SequenceLikelihood]:
        """The corpora's; and of a model of text the log p of the file's own words, none of them <unk>."""
        found = super()._scores_anew(model, context)
        if offers(model, "score_text"):
            log_p = model.score_text(self.texts("raw")).double().cpu()
            found.append(SequenceLikelihood("raw", "lower_bound", log_p))
        return found

    def texts(self, key: str) -> list[str]:
        if key != "raw":
            return super().texts(key)
        return [written(ids, self.corpus.raw_words) for ids in self._pieces(self._raw_test)]

    def bytes_of(self, one: SequenceLikelihood) -> Tensor:
        if one.key != "raw":
            return super().bytes_of(one)
        width = widths(self.corpus.raw_words)
        if self.streamed:
            return of_stream(self._raw_test, width, self.block).utf8
        return of_sentences(self._raw_test, width).utf8

    @cached_property
    def _raw_test(self) -> Tensor:
        """As `test`, with ids of `raw_words`."""
        if self.streamed:
            return self.corpus.raw[: len(self.test)]
        return self.test_sentences(self.budget["num_test"], ids=self.corpus.raw).x
