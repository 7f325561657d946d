"""The seven densities by name."""

from __future__ import annotations

from functools import cache

from .checkerboard import Checkerboard
from .curves import Circles, Moons, SwissRoll, TwoSpirals
from .density import Density
from .gaussians import EightGaussians
from .pinwheel import Pinwheel

_CLASSES: dict[str, type[Density]] = {
    "2spirals": TwoSpirals,
    "8gaussians": EightGaussians,
    "circles": Circles,
    "moons": Moons,
    "pinwheel": Pinwheel,
    "swissroll": SwissRoll,
    "checkerboard": Checkerboard,
}
NAMES = tuple(_CLASSES)


@cache
def density(name: str) -> Density:
    """The density of that name, one of `NAMES`, built once."""
    if name not in _CLASSES:
        raise ValueError(f"unknown density {name!r}; there are {', '.join(NAMES)}")
    return _CLASSES[name]()
