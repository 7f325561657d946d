"""ALOE's learned sampler: an autoregressive start, then a learned number of learned single-bit edits."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid, relu

from ...autoregressive.made.network import MaskedNetwork


class Trajectories(NamedTuple):
    """Paths that start somewhere and flip one bit at a time.

    Arguments:
        start: First states, (N, D).
        sites: The bits in the order of their flips, (N, K) int64; entries beyond a path's length are ignored.
        length: Number of edits of each path, (N,) int64, at most K.
    """

    start: Tensor
    sites: Tensor
    length: Tensor

    def states(self) -> Tensor:
        """All states of all paths, (N, K + 1, D); beyond its end a path stands still."""
        num, num_edits = self.sites.shape
        flips = torch.zeros(num, num_edits + 1, self.start.shape[1], device=self.start.device)
        live = torch.arange(num_edits, device=self.start.device) < self.length[:, None]
        flips[:, 1:].scatter_(2, self.sites[:, :, None], live[:, :, None].to(flips.dtype))
        return (self.start[:, None] + flips.cumsum(1)) % 2


class LocalEditSampler(nn.Module):
    """q(x_0, i_1 .. i_T) = q_0(x_0) prod_t (1 - stop(x_{t-1})) pos(i_t | x_{t-1}) stop(x_T).

    x_t is x_{t-1} with bit i_t flipped. A path ends by itself with probability stop(x), or without being asked after
    `max_edits` edits; so the probabilities of all paths sum to one. Its last state is the sample.

    Arguments:
        dim: Number of bits D.
        start_hidden: Width of the network for q_0.
        hidden: Width of the network for stop and pos.
        max_edits: Most edits K.
        order: The order in which q_0 generates bits, (D,) int64.

    q_0 is a MADE with one hidden layer; stop and pos are one network with D + 1 outputs, two hidden layers.
    """

    def __init__(self, dim: int, start_hidden: int, hidden: int, max_edits: int, order: Tensor) -> None:
        super().__init__()
        self.dim, self.max_edits = dim, max_edits
        self.start = MaskedNetwork(dim, start_hidden, 1, order, direct=True)
        self.inner = nn.ModuleList([nn.Linear(dim, hidden), nn.Linear(hidden, hidden)])
        self.outer = nn.Linear(hidden, dim + 1)

    def edit_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of states (N, D): the logit of stop, (N,), and log pos(i | x), (N, D)."""
        h = 2 * x - 1
        for layer in self.inner:
            h = relu(layer(h))
        out = self.outer(h)
        return out[:, -1], torch.log_softmax(out[:, :-1], dim=1)

    @torch.no_grad()
    def sample(self, num: int, *, rng: Generator) -> tuple[Tensor, Tensor]:
        """`num` independent samples (num, D), and how many edits each took, (num,)."""
        x = self.start.sample(num, rng=rng)
        num_edits = torch.zeros(num, device=x.device)
        active = torch.arange(num, device=x.device)
        for _ in range(self.max_edits):
            stop, log_position = self.edit_logits(x[active])
            # one block of noise, whatever the number still active: the stream's use does not depend on the outcome
            u = torch.rand(num, self.dim + 1, generator=rng, device=rng.device).to(x.device)[active]
            going = u[:, -1] >= torch.sigmoid(stop)
            active = active[going]
            if len(active) == 0:
                break
            gumbel = -torch.log(-torch.log(u[going, :-1]))
            site = (log_position[going] + gumbel).argmax(1)
            x[active, site] = 1 - x[active, site]
            num_edits[active] += 1
        return x, num_edits

    def log_prob(self, paths: Trajectories) -> Tensor:
        """log q of whole paths, (N,), in nats."""
        states = paths.states()
        num, slots = len(states), states.shape[1]
        step = torch.arange(slots, device=states.device).expand(num, slots)
        # the states that are asked whether to stop: all up to the path's end, unless the end was forced
        asked = (step <= paths.length[:, None]) & (step < self.max_edits)
        stop, log_position = self.edit_logits(states[asked])
        ends = (step == paths.length[:, None])[asked]
        sites = torch.cat([paths.sites, paths.sites.new_zeros(num, 1)], dim=1)[asked]
        moved = log_position.gather(1, sites[:, None])[:, 0] + logsigmoid(-stop)
        value = torch.where(ends, logsigmoid(stop), moved)
        rows = step.new_zeros(num, slots).add(torch.arange(num, device=states.device)[:, None])[asked]
        return self.start.log_prob(paths.start).index_add(0, rows, value)


@torch.no_grad()
def propose_paths(x: Tensor, max_edits: int, stop_prob: float, *, rng: Generator) -> tuple[Trajectories, Tensor]:
    """Paths that end in x, from a fixed proposal: a geometric number of distinct bits of x is flipped back.

    Arguments:
        x: Last states (N, D).
        max_edits: Most edits K, at most D.
        stop_prob: P(T = t) = (1 - stop_prob)^t stop_prob for t < K, and all the rest for t = K.
        rng: The source of randomness.

    Returns:
        The paths, and the log probability with which each was proposed given its end, (N,).
    """
    num, dim = x.shape
    u = torch.rand(num, dim + 1, generator=rng, device=rng.device).to(x.device)
    log_go = math.log1p(-stop_prob)
    length = (torch.log(u[:, -1]) / log_go).floor().clamp_(max=max_edits).to(torch.int64)
    sites = u[:, :-1].argsort(1)[:, :max_edits]  # distinct, in uniformly random order
    live = (torch.arange(max_edits, device=x.device) < length[:, None]).to(x.dtype)
    flips = torch.zeros_like(x).scatter_(1, sites, live)
    choices = torch.log(dim - torch.arange(max_edits, device=x.device, dtype=x.dtype))
    log_stop = (length < max_edits) * math.log(stop_prob)
    log_prob = length * log_go + log_stop - (choices * live).sum(1)
    return Trajectories((x + flips) % 2, sites, length), log_prob
