"""The true distribution of a density's code: log probability of each code, entropy floor, independent draws."""

from __future__ import annotations

import math
from functools import cache, cached_property

import torch
from torch import Tensor

from .cells import cell_masses
from .densities import density
from .density import Density
from .gray import GrayCode, all_codes, code_index


class CodeDistribution:
    """What a perfect model of the codes knows.

    With 16 bits the 65 536 probabilities are cell masses by quadrature, normalised: exact up to 2e-8 each. With 32 bits
    a code's probability is the density at the cell's centre times its area (see `Density.log_cell_mass` for the error,
    and the checkerboard for an exact area instead); the mass outside of the square, below 1e-9, is left out.

    Arguments:
        density: The density on the plane.
        code: Its code.
    """

    def __init__(self, density: Density, code: GrayCode) -> None:
        self.density = density
        self.code = code

    @classmethod
    def of(cls, name: str, bits: int = 32) -> CodeDistribution:
        """The true distribution of the density of that name with its published code."""
        return _of(name, bits)

    @cached_property
    def log_table(self) -> Tensor:
        """Log probabilities of all 16-bit codes in the order of `code_index`: (65536,) float64, -inf where zero."""
        if self.code.bits != 16:
            raise ValueError(f"a table of 2^{self.code.bits} probabilities is too large")
        num_cells = 2 * self.code.num_levels
        log_masses = cell_masses(self.density, self.code.half_width, num_cells).log()
        codes = all_codes(self.code.bits)
        column, row = self.code.cell(codes).unbind(1)
        table = log_masses[column * num_cells + row]
        lost = table < -600  # underflow of the quadrature, far from the data: the midpoint rule is finite there
        table[lost] = self.density.log_cell_mass(self.code.decode(codes[lost]), self.code.side)
        return table

    def log_prob(self, x: Tensor) -> Tensor:
        """Log probability of codes (N, bits) in nats: (N,) float64."""
        if self.code.bits == 16:
            return self.log_table.to(x.device)[code_index(x)]
        return self.density.log_cell_mass(self.code.decode(x), self.code.side)

    @cached_property
    def entropy(self) -> float:
        """Nats per code: no model has a smaller expected NLL.

        With 16 bits the sum over the table; with 32 bits the differential entropy + 2 ln int_scale, which is low by
        1e-4 for the checkerboard (cells that straddle an edge) and by less than 1e-6 for the others.
        """
        if self.code.bits == 16:
            return float(torch.special.entr(self.log_table.exp()).sum())
        return self.density.entropy(self.code.half_width) + 2 * math.log(self.code.int_scale)

    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        """Codes of independent points: (num, bits) float32."""
        return self.code.encode(self.density.sample(num, rng=rng))


@cache
def _of(name: str, bits: int) -> CodeDistribution:
    return CodeDistribution(density(name), GrayCode.of(name, bits))


def entropy_floor(name: str, bits: int = 32) -> float:
    """Entropy of the code of the density of that name in nats."""
    return CodeDistribution.of(name, bits).entropy
