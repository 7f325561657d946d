"""Points of the plane as bits: a sign and a Gray-coded magnitude for each coordinate, as ALOE and EB-GFN encode them.

Source: Learning Discrete Energy-based Models via Auxiliary-variable Local Exploration, Dai et al., 2020,
arXiv 2011.05363.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# 1 + the largest absolute coordinate of 5000 points of the published generators with numpy's RandomState(1);
# the sum is taken in float32 where the generator returns float32, as numpy 2 does.
F_SCALE = {
    "2spirals": 4.480986093779462,
    "8gaussians": 5.19477653503418,
    "circles": 4.780577659606934,
    "moons": 4.669443368911743,
    "pinwheel": 4.946059500727896,
    "swissroll": 4.265938758850098,
    "checkerboard": 4.999415502938802,
}


@dataclass(frozen=True)
class GrayCode:
    """A bijection between binary vectors and equal squares that fill |x|, |y| < half_width.

    Half of the bits belong to each coordinate: first its sign (1: negative), then the Gray code m xor (m >> 1) of
    m = floor(|x| * int_scale), most significant bit first. The cells on either side of zero are distinct.

    Arguments:
        f_scale: 1 + the largest absolute coordinate of the reference points, `F_SCALE`.
        bits: Bits in all, 32 or 16.
    """

    f_scale: float
    bits: int = 32

    def __post_init__(self) -> None:
        if self.bits not in (16, 32):
            raise ValueError(f"a code has 16 or 32 bits, not {self.bits}")

    @classmethod
    def of(cls, name: str, bits: int = 32) -> GrayCode:
        """The code that belongs to the density of that name."""
        return cls(F_SCALE[name], bits)

    @property
    def num_magnitude_bits(self) -> int:
        return self.bits // 2 - 1

    @property
    def num_levels(self) -> int:
        """Cells on either side of zero along one axis: 2^15 or 2^7."""
        return 1 << self.num_magnitude_bits

    @property
    def int_scale(self) -> float:
        """Cells per unit of length."""
        return self.num_levels / (self.f_scale + 1)

    @property
    def side(self) -> float:
        """Side of a cell."""
        return 1 / self.int_scale

    @property
    def half_width(self) -> float:
        """Half the side of the square that the code covers, the same for both sizes of the code."""
        return self.f_scale + 1

    def num_outside(self, points: Tensor) -> int:
        """How many of the points (N, 2) lie outside of the square, where `encode` moves them to the nearest cell.

        For each density the probability of it is below 1e-9.
        """
        return int((points.abs() >= self.half_width).any(1).sum())

    def encode(self, points: Tensor) -> Tensor:
        """Codes of points (N, 2): (N, bits) float32 of zeros and ones; points outside go to the nearest cell."""
        points = points.double()
        magnitude = (points.abs() * self.int_scale).long().clamp(max=self.num_levels - 1)  # (N, 2)
        gray = magnitude ^ (magnitude >> 1)
        shifts = torch.arange(self.num_magnitude_bits - 1, -1, -1, device=points.device)
        gray_bits = (gray[..., None] >> shifts) & 1
        return torch.cat([(points < 0).long()[..., None], gray_bits], 2).flatten(1).float()

    def decode(self, x: Tensor) -> Tensor:
        """Centres of the cells of codes (N, bits): (N, 2) float64."""
        cell = self.cell(x)
        return (cell.double() - self.num_levels + 0.5) / self.int_scale

    def cell(self, x: Tensor) -> Tensor:
        """Column and row of codes (N, bits), counted from the square's lower left corner: (N, 2) int64."""
        bits = x.long().reshape(-1, 2, self.bits // 2)
        binary = bits[..., 1:].cumsum(2) % 2  # a binary digit is the parity of the Gray digits down to it
        shifts = torch.arange(self.num_magnitude_bits - 1, -1, -1, device=x.device)
        magnitude = (binary << shifts).sum(2)
        return self.num_levels + torch.where(bits[..., 0] == 1, -1 - magnitude, magnitude)


def code_index(x: Tensor) -> Tensor:
    """Codes (N, bits), of at most 62 bits, read as binary numbers, first bit most significant: (N,) int64."""
    shifts = torch.arange(x.shape[1] - 1, -1, -1, device=x.device)
    return (x.long() << shifts).sum(1)


def all_codes(bits: int, device: torch.device | str = "cpu") -> Tensor:
    """All binary vectors in the order of `code_index`: (2^bits, bits) float32."""
    if bits > 20:
        raise ValueError(f"2^{bits} codes are too many to list")
    shifts = torch.arange(bits - 1, -1, -1, device=device)
    return ((torch.arange(1 << bits, device=device)[:, None] >> shifts) & 1).float()
