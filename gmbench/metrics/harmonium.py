"""log Z and log-likelihoods of restricted Boltzmann machines: by enumeration, by AIS, and by RAISE.

Annealing runs over harmoniums in between: at inverse temperature β the machine has weights βW, hidden biases βc and
visible biases (1 - β) logit(base_probs) + βb, so that β = 0 is a product of Bernoullis beside H fair coins and β = 1 is
the machine. On the visible marginal f_β(v) a block Gibbs step v -> h -> v' is reversible.

Sources: On the Quantitative Analysis of Deep Belief Networks, Salakhutdinov, Murray, ICML 2008; Accurate and
Conservative Estimates of MRF Log-likelihood using Reverse Annealing, Burda, Grosse, Salakhutdinov, 2014,
arXiv 1412.8566.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gmbench.estimate import Estimate
from gmbench.metrics.ais import AISResult, Schedule, betas
from gmbench.metrics.checks import check_binary, check_count, check_finite, check_shape
from gmbench.metrics.log_weights import log_mean_exp
from gmbench.model import Harmonium
from gmbench.samplers.noise import uniforms

MAX_BITS = 20
MAX_CHAINS = 1000  # of one pass of RAISE: their states and temporaries take some 10 MB at 784 visible bits


@torch.no_grad()
def log_density(harmonium: Harmonium, v: Tensor) -> Tensor:
    """log of the unnormalised marginal of v (B, V): minus the free energy, (B,), in the precision of v."""
    W, b, c = (part.to(v) for part in harmonium)
    return v @ b + softplus(c + v @ W).sum(-1)


@torch.no_grad()
def exact_log_partition(harmonium: Harmonium) -> Tensor:
    """log Z, a float64 scalar, by summing over the states of the smaller layer.

    Raises:
        ValueError: Both layers have more than 20 bits.
    """
    W, b, c = (part.double() for part in harmonium)
    if W.shape[0] < W.shape[1]:
        W, b, c = W.T, c, b
    num_bits = W.shape[1]
    if num_bits > MAX_BITS:
        raise ValueError(f"an exact log Z sums over 2^{num_bits} states; at most {MAX_BITS} bits")
    powers = 2 ** torch.arange(num_bits, device=W.device)
    parts: list[Tensor] = []
    for begin in range(0, 2**num_bits, 2**12):
        states = torch.arange(begin, min(begin + 2**12, 2**num_bits), device=W.device)
        h = (states[:, None] // powers % 2).double()
        parts.append(torch.logsumexp(h @ c + softplus(b + h @ W.T).sum(1), 0))
    return torch.logsumexp(torch.stack(parts), 0)


@torch.no_grad()
def ais_harmonium(
    harmonium: Harmonium,
    base_probs: Tensor,
    *,
    num_chains: int,
    num_steps: int,
    rng: Generator,
    schedule: Schedule = "linear",
) -> AISResult:
    """Forward AIS of log Z. A stochastic lower bound on log Z, so an NLL made with it is optimistic.

    One product with W and one with its transpose at every temperature: 4VH floating-point operations a chain and step,
    beside 2H softplus and V + H sigmoids and uniforms. `num_evaluations` counts those products, where a free energy
    takes one.

    Arguments:
        harmonium: The machine, on the device where the chains run and in the precision in which they do.
        base_probs: P(bit = 1) of the visible bits at β = 0, (V,), strictly between 0 and 1: the data's means, see
            `gmbench.metrics.ais.data_base`.
        num_chains: Independent chains, at least 2.
        num_steps: T, the number of temperature increments.
        rng: Draws the initial states and the transitions.
        schedule: Spacing of the temperatures.
    """
    path = _Path(harmonium, base_probs)
    check_count("num_chains", num_chains, least=2)
    beta = betas(num_steps, schedule).tolist()
    v = path.start(num_chains, rng)
    log_w = torch.full((num_chains,), path.log_z_base, dtype=torch.float64, device=v.device)
    for k in range(1, num_steps + 1):
        field = path.field(v)
        log_w += path.log_ratio(v, field, beta[k], beta[k - 1])
        if k < num_steps:  # a move at β = 1 could not change the weight any more
            v = path.step(field, beta[k], rng)
    mean = log_mean_exp(log_w)
    log_z = Estimate(
        value=mean.value,
        stderr=mean.stderr,
        n=num_chains,
        kind="lower_bound",
        note=f"forward AIS, {num_steps} {schedule} steps, ESS {mean.ess:.3g} of {num_chains} chains",
    )
    return AISResult(log_z, log_w, mean.ess, 2 * num_steps - 1)


@torch.no_grad()
def raise_harmonium(
    harmonium: Harmonium,
    base_probs: Tensor,
    v: Tensor,
    *,
    num_chains: int,
    num_steps: int,
    rng: Generator,
    schedule: Schedule = "linear",
) -> Tensor:
    """RAISE: log-likelihood of each point (N,), float64 nats, by chains that anneal from the point to the base.

    exp of it, averaged over chains, is an unbiased estimate of p_ann(v), the *normalised* distribution of the end of
    forward annealing with these steps and a last one at β = 1; its log is a lower bound on log p_ann(v) in expectation.
    p_ann tends to p as the steps grow, and on points of p itself E log p_ann is at most E log p; on other data the
    estimate is conservative as a rule, not by theorem. The cost of a chain and step is that of `ais_harmonium`.

    Arguments:
        harmonium: The machine, on the device where the chains run and in the precision in which they do.
        base_probs: P(bit = 1) of the visible bits at β = 0, (V,), strictly between 0 and 1.
        v: Points (N, V).
        num_chains: Chains a point; more tighten the bound.
        num_steps: T, the number of temperature increments.
        rng: Draws the transitions.
        schedule: Spacing of the temperatures.
    """
    path = _Path(harmonium, base_probs)
    check_shape("v", v, ("N", len(base_probs)))
    check_binary("v", v)
    check_count("num_chains", num_chains)
    beta = betas(num_steps, schedule).tolist()
    v = v.to(harmonium.weight)
    log_f = log_density(harmonium, v.double())
    log_w = []
    for start in torch.split(torch.arange(len(v), device=v.device).repeat_interleave(num_chains), MAX_CHAINS):
        weight, field = log_f[start] - path.log_z_base, path.field(v[start])
        for k in range(num_steps, 0, -1):
            state = path.step(field, beta[k], rng)
            field = path.field(state)
            weight -= path.log_ratio(state, field, beta[k], beta[k - 1])
        log_w.append(weight)
    return torch.logsumexp(torch.cat(log_w).view(len(v), num_chains), 1) - math.log(num_chains)


class _Path:
    """The harmoniums between a product of Bernoullis (β = 0) and the machine (β = 1)."""

    def __init__(self, harmonium: Harmonium, base_probs: Tensor) -> None:
        self.W, self.b, self.c = harmonium
        check_shape("base_probs", base_probs, (len(self.b),))
        if not bool(((base_probs > 0) & (base_probs < 1)).all()):
            raise ValueError("base_probs must lie strictly between 0 and 1: see data_base")
        for name, part in zip(harmonium._fields, harmonium, strict=True):
            check_finite(f"the {name} of the harmonium", part)
        a = torch.logit(base_probs.to(self.W.device, torch.float64))
        self.a = a.to(self.W.dtype)  # (V,)
        self.tilt = self.b - self.a
        self.log_z_base = float(softplus(a).sum()) + self.W.shape[1] * math.log(2)

    def start(self, num_chains: int, rng: Generator) -> Tensor:
        """Draws of the base (num_chains, V)."""
        return self._bits(self.a.expand(num_chains, -1).sigmoid(), rng)

    def field(self, v: Tensor) -> Tensor:
        """c + vW, (B, H), of v (B, V): what both a weight and a step need."""
        return torch.addmm(self.c, v, self.W)

    def log_ratio(self, v: Tensor, field: Tensor, high: float, low: float) -> Tensor:
        """log f_high(v) - log f_low(v), (B,)."""
        # subtracted unit by unit: the difference of two sums would keep the rounding of both
        hidden = softplus(high * field).sub_(softplus(low * field)).sum(1)
        return torch.add(hidden, v @ self.tilt, alpha=high - low)

    def step(self, field: Tensor, beta: float, rng: Generator) -> Tensor:
        """v' (B, V) by h ~ p_β(h | v) and v' ~ p_β(v' | h), from the field (B, H) of v."""
        h = self._bits((beta * field).sigmoid_(), rng)
        bias = torch.lerp(self.a, self.b, beta)
        return self._bits(torch.addmm(bias, h, self.W.T, alpha=beta).sigmoid_(), rng)

    @staticmethod
    def _bits(p: Tensor, rng: Generator) -> Tensor:
        """Independent bits with these probabilities, in their memory."""
        return torch.lt(uniforms(tuple(p.shape), p, rng), p, out=p)
