"""The two corruption processes of the D3PM on bits, and what the reverse chain owes each of their steps.

A bit is a spin: -1 for 0, +1 for 1, and 0 where it is not known (masked). Time t runs from 0, the data, to T, where
nothing is left of them. The network's output for a bit is l, the log odds that it was 1 at time 0, and the reverse
step follows from it by the paper's equation (4),

    p(x_{t-1} | x_t) ~ q(x_t | x_{t-1}) sum_{x_0} q(x_{t-1} | x_0) p(x_0 | x_t).

Source: J. Austin, D. D. Johnson, J. Ho, D. Tarlow, R. van den Berg, "Structured Denoising Diffusion Models in Discrete
State-Spaces", 2021, arXiv 2107.03006.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus
from torch.special import entr

from gmbench.samplers.noise import uniforms


class Process(nn.Module):
    """What the model asks of a corruption process of `num_steps` steps T.

    Times are int64 tensors (B,) with values 1 .. T, spins (B, D), logits l (B, D).
    """

    num_inputs: int
    """How many numbers tell the network the state of one bit."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps

    def corrupt(self, s: Tensor, t: Tensor, rng: Generator) -> Tensor:
        """A draw of x_t given x_0, spins s (B, D)."""
        raise NotImplementedError

    def inputs(self, s: Tensor) -> Tensor:
        """The network's input (B, num_inputs * D) for the state s (B, D)."""
        raise NotImplementedError

    def terms(self, logits: Tensor, s: Tensor, start: Tensor, t: Tensor) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (B,), of x_t = s and x_0 = start.

        At t = 1 that is -log p(x_0 | x_1).
        Minus the sum of these terms' expectations over t = 1 .. T bounds log p(x_0); at T nothing else is left over.
        """
        raise NotImplementedError

    def begin(self, num: int, dim: int, like: Tensor, rng: Generator) -> Tensor:
        """`num` draws of x_T, (num, D)."""
        raise NotImplementedError

    def back(self, logits: Tensor, s: Tensor, t: int, rng: Generator) -> Tensor:
        """A draw of x_{t-1} from p(x_{t-1} | x_t = s), (B, D)."""
        raise NotImplementedError


class Absorbing(Process):
    """A bit is lost at step t with probability 1 / (T - t + 1) and stays lost: at time t it is with probability t / T.

    Its term reduces to a cross-entropy: a lost bit was lost at this very step with probability 1 / t, and what is known
    at t was never anything else. So it is the sum over lost bits of -log p(x_0 | x_t), divided by t.
    """

    num_inputs = 2

    def corrupt(self, s: Tensor, t: Tensor, rng: Generator) -> Tensor:
        lost = uniforms(tuple(s.shape), s, rng) < (t / self.num_steps)[:, None]
        return s.masked_fill(lost, 0.0)

    def inputs(self, s: Tensor) -> Tensor:
        return torch.cat([s, s.abs()], 1)

    def terms(self, logits: Tensor, s: Tensor, start: Tensor, t: Tensor) -> Tensor:
        return (softplus(-start * logits) * (s == 0)).sum(1) / t

    def begin(self, num: int, dim: int, like: Tensor, rng: Generator) -> Tensor:
        return like.new_zeros(num, dim)

    def back(self, logits: Tensor, s: Tensor, t: int, rng: Generator) -> Tensor:
        # one number decides both whether a lost bit is found, with probability 1 / t, and what it then is
        u = t * uniforms(tuple(s.shape), s, rng)
        found = torch.where(u < logits.sigmoid(), 1.0, -1.0).masked_fill(u >= 1, 0.0)
        return torch.where(s == 0, found, s)


class Uniform(Process):
    """A bit is drawn anew, 0 or 1 alike, at step t with probability beta_t.

    At time t it keeps the memory a_t = prod (1 - beta): P(x_t = x_0) = (1 + a_t) / 2, where a_t falls along a squared
    cosine to 0 (Nichol and Dhariwal 2021, arXiv 2102.09672). All laws are Bernoulli and are handled as log odds, the
    terms in float64: of 1000 small ones each may be off by little.
    """

    num_inputs = 1
    OFFSET = 0.008

    def __init__(self, num_steps: int) -> None:
        super().__init__(num_steps)
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        memory = torch.cos((time + self.OFFSET) / (1 + self.OFFSET) * math.pi / 2).square()
        memory = memory / memory[0]
        memory[-1] = 0.0
        kept = memory[1:] / memory[:-1]  # 1 - beta
        step = torch.cat([torch.zeros(1, dtype=torch.float64), ((1 + kept) / (1 - kept)).log()])
        self.memory: Tensor
        self.step_odds: Tensor
        self.lost_odds: Tensor
        self.register_buffer("memory", memory, persistent=False)  # a_t, (T + 1,)
        # log odds that a step leaves a bit as it is, and that it is not as it was at 0; that is -inf at t = 0
        self.register_buffer("step_odds", step, persistent=False)
        self.register_buffer("lost_odds", ((1 - memory) / (1 + memory)).log(), persistent=False)

    def corrupt(self, s: Tensor, t: Tensor, rng: Generator) -> Tensor:
        flipped = uniforms(tuple(s.shape), s, rng) < (0.5 - 0.5 * self.memory[t].to(s))[:, None]
        return torch.where(flipped, -s, s)

    def inputs(self, s: Tensor) -> Tensor:
        return s

    def back_odds(self, logits: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Log odds (B, D) of x_{t-1} = 1 under p(x_{t-1} | x_t = s)."""
        lost = self.lost_odds[t - 1].to(logits)[:, None]
        return s * self.step_odds[t].to(logits)[:, None] + torch.logaddexp(logits, lost) - softplus(logits + lost)

    def terms(self, logits: Tensor, s: Tensor, start: Tensor, t: Tensor) -> Tensor:
        p = self.back_odds(logits.double(), s.double(), t)
        q = s * self.step_odds[t][:, None] - start * self.lost_odds[t - 1][:, None]  # infinite at t = 1
        one, zero = torch.sigmoid(q), torch.sigmoid(-q)
        return (one * softplus(-p) + zero * softplus(p) - entr(one) - entr(zero)).sum(1)

    def begin(self, num: int, dim: int, like: Tensor, rng: Generator) -> Tensor:
        return torch.where(uniforms((num, dim), like, rng) < 0.5, -1.0, 1.0)

    def back(self, logits: Tensor, s: Tensor, t: int, rng: Generator) -> Tensor:
        odds = self.back_odds(logits, s, torch.tensor([t], device=s.device))
        return torch.where(uniforms(tuple(s.shape), s, rng) < odds.sigmoid(), 1.0, -1.0)
