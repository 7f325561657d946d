"""Spaces: what kind of object a task is about and a model can be fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Space:
    """Base of all spaces; `kind` is the word that manifests use."""

    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """How large a point is, in units of its kind: the smallest space is the one that checks are made on."""
        raise NotImplementedError

    def cast(self, x: Tensor) -> Tensor:
        """`x` in the type in which points are stored; ValueError where that would change a value."""
        raise NotImplementedError

    def validate(self, x: Tensor, what: str = "points") -> None:
        """Raises ValueError, in one line, unless `x` is a batch of objects of this space."""
        raise NotImplementedError


@dataclass(frozen=True)
class BinaryVector(Space):
    """Vectors of `dim` bits, stored as float32 tensors (B, dim) with values 0 and 1.

    Arguments:
        dim: The number of bits D.
        layout: How the bits are arranged, outermost first: (10, 10) for a lattice, (2, 16) for two 16-bit
            coordinates. Models that know no geometry ignore it.
    """

    kind: ClassVar[str] = "binary"
    dim: int
    layout: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.dim

    def cast(self, x: Tensor) -> Tensor:
        return x.float()

    def validate(self, x: Tensor, what: str = "points") -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"{what}: shape {tuple(x.shape)} where (number, {self.dim}) is expected")
        if len(x) == 0:
            raise ValueError(f"{what}: there are none")
        if not ((x == 0) | (x == 1)).all():
            raise ValueError(f"{what}: values other than 0 and 1 in a space of binary vectors")


@dataclass(frozen=True)
class TokenSequence(Space):
    """Sequences of token ids with their end, padded to one length: int64 tensors (B, max_length).

    x_1 … x_n is stored as x_1 … x_n EOS PAD PAD …; its probability is that of the n tokens and of EOS after them.
    Nothing marks the beginning: a model puts in front what it needs. Where `ends` is false, rows are windows of a
    stream: they are full of tokens (EOS may be one of them, as the end of a line), and nothing is padded.

    Arguments:
        vocab_size: Ids are 0 … vocab_size - 1; PAD and EOS are among them.
        max_length: Positions of a row; a sequence has at most max_length - 1 tokens before its EOS.
        ends: Whether a row is a sequence with its end, or a window of a stream.
        words: What every id is written as, where that is known: vocab_size strings.
        joiner: What stands between two words.
    """

    kind: ClassVar[str] = "tokens"
    PAD: ClassVar[int] = 0
    EOS: ClassVar[int] = 1
    vocab_size: int
    max_length: int
    ends: bool = True
    words: tuple[str, ...] = field(default=(), repr=False)
    joiner: str = " "

    @property
    def size(self) -> int:
        return self.vocab_size * self.max_length

    def cast(self, x: Tensor) -> Tensor:
        return _integers(x)

    def validate(self, x: Tensor, what: str = "sequences") -> None:
        if x.ndim != 2 or x.shape[1] != self.max_length:
            raise ValueError(f"{what}: shape {tuple(x.shape)} where (number, {self.max_length}) is expected")
        if len(x) == 0:
            raise ValueError(f"{what}: there are none")
        if x.is_floating_point():
            raise ValueError(f"{what}: {x.dtype} where whole numbers are expected")
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"{what}: token {low if low < 0 else high} outside of 0 … {self.vocab_size - 1}")
        if not self.ends:
            if (x == self.PAD).any():
                raise ValueError(f"{what}: padding in a window of a stream")
            return
        ended = (x == self.EOS).cumsum(1)
        if not (ended[:, -1] == 1).all():
            row = int((ended[:, -1] != 1).nonzero()[0])
            num = int(ended[row, -1])
            raise ValueError(f"{what}: row {row} has {num} ends (token {self.EOS}) where one is expected")
        after = (ended == 1) & (x != self.EOS)
        if not ((x == self.PAD) == after).all():
            raise ValueError(f"{what}: padding (token {self.PAD}) belongs after the end, and nothing else does")

    def finish(self, x: Tensor) -> Tensor:
        """Tokens x (B, max_length), drawn without regard to their ends, as points of this space.

        Of sequences, what stands behind the first EOS becomes padding, and a row without EOS gets it at its end.
        """
        if not self.ends:
            return x
        x = x.clone()
        x[~(x == self.EOS).any(1), -1] = self.EOS
        x[((x == self.EOS).cumsum(1) - (x == self.EOS).long()) > 0] = self.PAD
        return x

    def text(self, x: Tensor) -> list[str]:
        """Rows x (B, T) as they are written, without EOS and padding."""
        if not self.words:
            raise ValueError("the words of this vocabulary are not known")
        hidden = (self.PAD, self.EOS)
        return [self.joiner.join(self.words[token] for token in row if token not in hidden) for row in x.tolist()]


@dataclass(frozen=True)
class TokenPair(Space):
    """A source sequence and the target sequence that belongs to it, side by side: int64 (B, S + T).

    A model of such pairs is one of p(target | source).

    Arguments:
        source: The space of the first S columns.
        target: The space of the T columns behind them; its ids are its own.
    """

    kind: ClassVar[str] = "token_pairs"
    source: TokenSequence
    target: TokenSequence

    @property
    def size(self) -> int:
        return self.source.size + self.target.size

    def cast(self, x: Tensor) -> Tensor:
        return _integers(x)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sources (B, S) and targets (B, T) of pairs x (B, S + T)."""
        return x[:, : self.source.max_length], x[:, self.source.max_length :]

    def validate(self, x: Tensor, what: str = "pairs") -> None:
        width = self.source.max_length + self.target.max_length
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"{what}: shape {tuple(x.shape)} where (number, {width}) is expected")
        source, target = self.split(x)
        self.source.validate(source, f"{what}, sources")
        self.target.validate(target, f"{what}, targets")


def _integers(x: Tensor) -> Tensor:
    if x.is_floating_point() and not (x == x.round()).all():
        raise ValueError("tokens are whole numbers, and some of these are not")
    return x.long()


KINDS: dict[str, type[Space]] = {space.kind: space for space in (BinaryVector, TokenSequence, TokenPair)}
