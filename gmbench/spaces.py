"""Spaces: what kind of object a task is about and a model can be fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Space:
    """Base of all spaces; `kind` is the word that manifests use."""

    kind: ClassVar[str]

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

    def validate(self, x: Tensor, what: str = "points") -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"{what}: shape {tuple(x.shape)} where (number, {self.dim}) is expected")
        if len(x) == 0:
            raise ValueError(f"{what}: there are none")
        if not ((x == 0) | (x == 1)).all():
            raise ValueError(f"{what}: values other than 0 and 1 in a space of binary vectors")


KINDS: dict[str, type[Space]] = {space.kind: space for space in (BinaryVector,)}
