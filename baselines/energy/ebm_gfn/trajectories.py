"""Random walks between partial states: the one piece of machinery behind sampling, likelihood, loss and negatives.

A walk takes K steps from each of N states: up (setting locations with P_F) or down (clearing them with P_B). Whatever
its direction, an edge s -> s' of the graph has log P_F(s' | s) at its lower end and log P_B(s | s') at its upper end,
and everything that is done with a walk needs only the sum of their differences along it, the *log ratio*

    sum_k log P_F(s_{k+1} | s_k) - log P_B(s_k | s_{k+1})        (k upwards, in either direction of walking).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gmbench.samplers.noise import uniforms

from .mlp import StepwisePass
from .policy import Policy, bits, log_softmax_legal, signed, split_learned


class Walk(NamedTuple):
    """Where N walks of K steps went."""

    s: Tensor  # (N, D), the states at their ends
    order: Tensor  # (N, K) int64, the location set or cleared at each step
    log_ratio: Tensor  # (N,) float64, see the head of this file; differentiable if that was asked for


def walk(
    policy: Policy,
    s: Tensor,
    *,
    num_up: int,
    num_steps: int,
    rng: torch.Generator,
    epsilon: float = 0.0,
    temperature: float = 1.0,
    differentiable: bool = False,
) -> Walk:
    """Walks K steps from each state; up and down walks share the evaluations of the network.

    Arguments:
        policy: P_F and P_B.
        s: (N, D), states; the first `num_up` have at least K unset locations, the others K set ones.
        num_up: How many walk up, the others walk down.
        num_steps: K >= 1.
        rng: Source of all randomness.
        epsilon: Walking up, the probability of a uniformly random legal choice instead of the policy's.
        temperature: Walking up, divides the logits. Both change where the walk goes, not the log ratio at which the
            policy rates it.
        differentiable: Whether `log_ratio` can be differentiated by the parameters of `policy.mlp`: exactly, by
            hand, with the stored activations of the K (+ 1) evaluations.

    Returns:
        The walks.
    """
    if not 1 <= num_steps <= policy.num_bits:
        raise ValueError(f"a walk over {policy.num_bits} locations takes 1 to {policy.num_bits} steps, not {num_steps}")
    with torch.no_grad():
        take = _walk_learned if policy.backward == "learned" else _walk_uniform
        end, order, log_ratio, record = take(policy, s, num_up, num_steps, rng, epsilon, temperature, differentiable)
    if differentiable:
        log_ratio = _LogRatio.apply(log_ratio, record, *policy.mlp.parameters())
    return Walk(end, order, log_ratio)


def sample(policy: Policy, num: int, *, rng: torch.Generator) -> Tensor:
    """Draws num vectors (num, D) in {0., 1.} from the GFlowNet."""
    empty = policy.log_z.new_zeros(num, policy.num_bits)
    return bits(walk(policy, empty, num_up=num, num_steps=policy.num_bits, rng=rng).s)


def log_prob(
    policy: Policy, x: Tensor, *, num_trajectories: int, rng: torch.Generator, chunk_size: int = 4096
) -> Tensor:
    """A stochastic lower bound of log p(x), the probability that the GFlowNet ends in x.

    p(x) = E_{tau ~ P_B(. | x)} [P_F(tau) / P_B(tau | x)], estimated from M trajectories drawn backwards from x. Its
    logarithm is at most log p(x) on average, by Jensen's inequality, and tends to it as M grows. For the uniform
    policy P_B cancels against the order's part of P_F and what is averaged is the likelihood under M random orders.

    Arguments:
        x: (B, D) in {0., 1.}.
        num_trajectories: M.
        rng: Source of the trajectories.
        chunk_size: How many trajectories are walked at once.

    Returns:
        (B,) float64, nats.
    """
    rows = signed(x.to(policy.log_z.dtype)).repeat_interleave(num_trajectories, 0)
    ratios = [walk(policy, s, num_up=0, num_steps=policy.num_bits, rng=rng).log_ratio for s in rows.split(chunk_size)]
    log_ratio = torch.cat(ratios).view(len(x), num_trajectories)
    return log_ratio.logsumexp(1) - math.log(num_trajectories)


class _LogRatio(torch.autograd.Function):
    """Hands the gradient of the log ratios to the recorded pass, which knows it in closed form."""

    @staticmethod
    def forward(ctx: Any, log_ratio: Tensor, record: StepwisePass, *parameters: Tensor) -> Tensor:
        ctx.record = record
        ctx.save_for_backward(*parameters)
        return log_ratio.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if the parameters have been changed since, which `record` cannot see
        record, ctx.record = ctx.record, None  # frees the activations now, not with the last reference to the loss
        return None, None, *record.gradients(scale)


def _walk_learned(
    policy: Policy,
    s: Tensor,
    num_up: int,
    num_steps: int,
    rng: torch.Generator,
    epsilon: float,
    temperature: float,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, StepwisePass]:
    num, num_bits = s.shape
    up, down = slice(0, num_up), slice(num_up, num)
    is_up = torch.arange(num, device=s.device) < num_up
    s = s.clone()
    network = StepwisePass(policy.mlp, s, record=record)
    noise = uniforms((num_steps, num), s.double(), rng)
    order = torch.empty(num, num_steps, dtype=torch.int64, device=s.device)
    log_ratio = torch.zeros(num, dtype=torch.float64, device=s.device)
    # `add` and `clear` are the two names of an edge: its column in P_F, at its lower end, and in P_B, at its upper end.
    # A walk is at one end when it chooses the edge, and at the other one step later.
    add, clear = torch.zeros_like(is_up, dtype=torch.int64), torch.zeros_like(is_up, dtype=torch.int64)
    for k in range(num_steps + 1):
        outputs = network.outputs()
        add_logits, clear_logits = split_learned(outputs, s)
        log_pf, log_pb = log_softmax_legal(*add_logits), log_softmax_legal(*clear_logits)  # (N, 2D), (N, D)
        if k < num_steps:
            p_add = _explore(log_pf[up], add_logits[1][up], epsilon, temperature)
            add = torch.cat([_draw(p_add, noise[k, up]), add[down]])
            clear = torch.cat([clear[up], _draw(log_pb[down].exp(), noise[k, down])])
        # Rows whose state is the lower end of an edge of their walk, so that P_F counts, and rows where it is the upper
        # end, so that P_B counts: both, except that the first state has no edge behind and the last one none ahead.
        lower, upper = torch.ones_like(is_up), torch.ones_like(is_up)
        if k == 0:
            lower, upper = is_up, ~is_up
        elif k == num_steps:
            lower, upper = ~is_up, is_up
        log_ratio += lower * log_pf.gather(1, add[:, None])[:, 0] - upper * log_pb.gather(1, clear[:, None])[:, 0]
        if record:
            network.record_score(_score(log_pf, log_pb, add, clear, lower.to(s.dtype), upper.to(s.dtype)))
        if k < num_steps:
            location = torch.where(is_up, add % num_bits, clear)
            value = torch.where(is_up, signed((add // num_bits).to(s.dtype)), s.gather(1, clear[:, None])[:, 0])
            change = torch.where(is_up, value, -value)
            s.scatter_add_(1, location[:, None], change[:, None])
            network.move(location, change)
            order[:, k] = location
            add, clear = location + num_bits * (value > 0), location
    return s, order, log_ratio, network


def _score(log_pf: Tensor, log_pb: Tensor, add: Tensor, clear: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """d (log P_F(add) - log P_B(clear)) / d logits = (onehot(add) - P_F, P_B - onehot(clear)), as (N, 3D)."""
    score = torch.cat([log_pf, log_pb], 1).exp_()
    score_pf, score_pb = score.split([log_pf.shape[1], log_pb.shape[1]], 1)
    score_pf.mul_(-lower[:, None]).scatter_add_(1, add[:, None], lower[:, None])
    score_pb.mul_(upper[:, None]).scatter_add_(1, clear[:, None], -upper[:, None])
    return score


def _walk_uniform(
    policy: Policy,
    s: Tensor,
    num_up: int,
    num_steps: int,
    rng: torch.Generator,
    epsilon: float,
    temperature: float,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, StepwisePass]:
    num, num_bits = s.shape
    up, down = slice(0, num_up), slice(num_up, num)
    can_move = s != 0
    can_move[up].logical_not_()
    keys = uniforms((num, num_bits), s, rng)
    order = keys.masked_fill_(~can_move, 2.0).argsort(1)[:, :num_steps]
    noise = uniforms((num_steps, num_up), s, rng)
    # The order does not depend on the network. So a walk down is climbed from its lowest state, in the reverse order
    # and with the known values, and all rows climb.
    climb = torch.cat([order[up], order[down].flip(1)])
    values = s.gather(1, climb)  # (N, K), known where the walk is down
    s = torch.cat([s[up], s[down].scatter(1, order[down], 0.0)])
    network = StepwisePass(policy.mlp, s, record=record)
    num_set = (s != 0).sum(1).double()  # (N,), t
    log_ratio = torch.zeros(num, dtype=torch.float64, device=s.device)
    for k in range(num_steps):
        location, value = climb[:, k], values[:, k]
        log_odds = network.outputs(location)  # of x_d = 1
        p_one = torch.sigmoid(log_odds[up] / temperature) * (1 - epsilon) + epsilon / 2
        value[up] = signed((noise[k] < p_one).to(s.dtype))
        # log P_F = log p(v | s, d) - log(D - t), and log P_B = -log(t + 1).
        log_ratio += F.logsigmoid(value * log_odds) - (num_bits - num_set).log() + (num_set + 1).log()
        network.record_score(value * torch.sigmoid(-value * log_odds))
        if k + 1 < num_steps:
            network.move(location, value)
        num_set += 1
    s[up] = s[up].scatter(1, order[up], values[up])
    return s, order, log_ratio, network


def _explore(log_p: Tensor, legal: Tensor, epsilon: float, temperature: float) -> Tensor:
    """The probabilities (N, A) by which a walk up chooses."""
    p = log_p.exp() if temperature == 1 else (log_p / temperature).softmax(1)
    if epsilon > 0:
        p = (1 - epsilon) * p + epsilon * legal / legal.sum(1, keepdim=True)
    return p


def _draw(p: Tensor, u: Tensor) -> Tensor:
    """One action per row (N,) from probabilities p (N, A), normalised or not, by inversion of u (N,) in [0, 1).

    Much cheaper than a Gumbel variable per action. In integers, so that an action of probability 0 is never drawn,
    whatever the order in which the device sums. Where p is NaN some action is returned, and the NaN shows in the loss.
    """
    cumulative = (p * 2.0**32).long().cumsum(1)
    return (cumulative <= (u * cumulative[:, -1]).long()[:, None]).sum(1).clamp_max(p.shape[1] - 1)
