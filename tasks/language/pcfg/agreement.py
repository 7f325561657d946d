"""Closers that agree with their openers, by how far apart the two are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.perplexity import nats_per_unit

from .grammar import NO_RULE, Grammar


def distances(grammar: Grammar, x: Tensor, closers: Sequence[str]) -> Tensor:
    """How many positions each closer of sentences x (N, T) stands behind its opener, (N, T) int64; 0 elsewhere.

    Arguments:
        closers: The symbols that expand to nothing but a closer; the opener is the word that put one on the stack.
    """
    x = x.cpu()
    parsed = grammar.parse(x)
    symbols = torch.tensor([grammar.number[name] for name in closers])
    heads = torch.where(parsed.rules == NO_RULE, -1, grammar.heads[parsed.rules.clamp(min=0)])
    behind = torch.arange(x.shape[1]) - parsed.origins
    return torch.where(torch.isin(heads, symbols), behind, 0)


def by_distance(excess: Tensor, distance: Tensor, edges: Sequence[int]) -> dict[str, Estimate]:
    """Mean excess nats at the closers of each bin of distances, `d4-7` …, of those that occur, and of `all`.

    A sentence is one draw, however many closers it has: the standard error is that of a ratio. What is on top of the
    stack is known before the closer is read, so no model can expect a negative excess in any bin.

    Arguments:
        excess: Model's minus truth's nats of each position, (N, T).
        distance: From `distances`, (N, T).
        edges: The least distance of each bin, rising; the last bin has no end.
    """
    ends = [*(edge - 1 for edge in edges[1:]), None]
    bins = {
        f"d{first}+" if last is None else f"d{first}-{last}": (first, last)
        for first, last in zip(edges, ends, strict=True)
    }
    found = {}
    for name, (first, last) in {"all": (1, None), **bins}.items():
        inside = distance >= first if last is None else (distance >= first) & (distance <= last)
        counts = inside.sum(1)
        has = counts > 0
        if bool(has.any()):
            one = nats_per_unit(torch.where(inside, excess, 0.0).sum(1)[has], counts[has])
            note = "; ".join(filter(None, [f"{int(counts.sum())} closers", one.note]))
            found[name] = one.model_copy(update={"note": note})
    return found
