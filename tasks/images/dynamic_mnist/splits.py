"""Fixed orders of images, from hashes: the same on every machine and with every version of the libraries."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def uniforms(name: str, num: int) -> Tensor:
    """Numbers in [0, 1) that look random, (num,) float64; a name has its own."""
    digests = (hashlib.sha256(f"{name}/{index}".encode()).digest() for index in range(num))
    return torch.tensor([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], dtype=torch.float64) / 2**53


def shuffled(name: str, num: int) -> Tensor:
    """A random but fixed order of `num` images: (num,) int64."""
    return uniforms(name, num).argsort(stable=True)


def stratified(name: str, classes: Tensor) -> Tensor:
    """A random but fixed order in which every stretch has the classes in nearly the proportions of the whole.

    An image's place is its rank in a random order of its class, over the size of the class.

    Arguments:
        name: Which order.
        classes: (N,) integers.

    Returns:
        (N,) int64.
    """
    places = uniforms(name, len(classes))
    for one in classes.unique():
        members = (classes == one).nonzero()[:, 0]
        ranks = places[members].argsort(stable=True).argsort(stable=True)
        places[members] = (ranks + places[members]) / len(members)
    return places.argsort(stable=True)
