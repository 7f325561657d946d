"""What test text counts in a denominator: the one place where nats become nats per word and bits per byte."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gmbench.estimate import Estimate, Kind
from gmbench.metrics.perplexity import nats_per_unit, rate_per_point, stream_rate
from gmbench.spaces import TokenSequence


@dataclass(frozen=True)
class Units:
    """Units of each sentence, or of each position of a stream, (N,), float64.

    Lines of running text follow from those before them, as positions of a stream do. So what counts as one draw in a
    standard error is a number of consecutive lines, or of positions.

    Arguments:
        words: Words, and one for the end of a line.
        utf8: Bytes of the words as they are scored, with one byte behind each: a blank, or the line's end.
        block: Positions of a stream that are one draw; 0 of sentences.
        draw: To which draw each sentence belongs, (N,), 0 … G - 1, none of them empty.
    """

    words: Tensor
    utf8: Tensor
    block: int = 0
    draw: Tensor | None = None

    @property
    def sentences(self) -> Tensor:
        """Ones."""
        return torch.ones_like(self.words)

    def rate(self, nats: Tensor, units: Tensor, kind: Kind) -> Estimate:
        """Σ nats / Σ units with its standard error; `kind` is that of log p.

        Arguments:
            nats: (N,), or of a stream those of its blocks together, (G,).
            units: (N,), or as many as nats.
        """
        if self.block and len(nats) == len(self.words):
            return stream_rate(nats, units, block=self.block, kind=kind)
        if self.block:
            return nats_per_unit(nats, units if len(units) == len(nats) else self._of_blocks(units), kind)
        if self.draw is None or bool(torch.isinf(nats).any()):
            return nats_per_unit(nats, units, kind)
        found = nats_per_unit(self._summed(nats), self._summed(units), kind)
        if found.n == len(nats):
            return found
        note = f"{found.n} groups of consecutive lines, {len(nats)} sentences"
        return found.model_copy(update={"note": "; ".join(filter(None, (note, found.note)))})

    def points(self, nats: Tensor) -> Tensor:
        """Numbers whose mean is the nats per word: one a draw (of a stream: a block, the last shorter)."""
        if not self.block:
            return rate_per_point(self._summed(nats), self._summed(self.words))
        of_blocks = self._of_blocks(nats) if len(nats) == len(self.words) else nats
        return rate_per_point(of_blocks, self._of_blocks(self.words))

    def _of_blocks(self, x: Tensor) -> Tensor:
        """What the positions (N,) of each block have together, (G,)."""
        return torch.stack([one.sum() for one in x.split(self.block)])

    def _summed(self, x: Tensor) -> Tensor:
        """What the sentences (N,) of each draw have together, (G,)."""
        if self.draw is None:
            return x
        return x.new_zeros(int(self.draw.max()) + 1).index_add_(0, self.draw, x)


def widths(words: Iterable[str]) -> Tensor:
    """Bytes of every id as it is written in UTF-8, and one behind it, (V,); of PAD and EOS none."""
    found = torch.tensor([len(word.encode()) + 1 for word in words], dtype=torch.float64)
    found[[TokenSequence.PAD, TokenSequence.EOS]] = 0
    return found


def of_sentences(x: Tensor, width: Tensor, draw: Tensor | None = None) -> Units:
    """Of rows x (N, T), given the widths of the ids (V,). A line's end is the byte behind its last word."""
    return Units((x != TokenSequence.PAD).sum(1).double(), width[x].sum(1), draw=draw)


def of_stream(ids: Tensor, width: Tensor, block: int) -> Units:
    """Of a stream (L,); the end of a blank line, which has no word before it, is a byte itself."""
    ends = ids == TokenSequence.EOS
    blank = ends & torch.cat([torch.tensor([True]), ends[:-1]])
    return Units(torch.ones(len(ids), dtype=torch.float64), width[ids] + blank, block)


