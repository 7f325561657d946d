"""The energy functions of the discrete energy-based models: quadratic (Ising) and multilayer perceptron.

Each gives the unnormalised log density log f(x) = -energy(x) of states x in {0, 1}^D, and the shortcuts that make
samplers cheap (`gmbench.samplers.target`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, linear, logsigmoid, silu

from gmbench.errors import MissingCapability
from gmbench.samplers.target import MAX_ROWS

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"elu": elu, "swish": silu}


class QuadraticEnergy(nn.Module):
    """log f(x) = s' J s + b' s with spins s = 2x - 1, J symmetric with zero diagonal (Boltzmann machine, Ising model).

    Arguments:
        dim: Number of bits D, at least 2.
        init_std: Standard deviation of the initial couplings J_ij.
        bias: Whether there is a field b, which starts at zero.

    Both (i, j) and (j, i) count, so a pair contributes 2 J_ij s_i s_j. The parameter `pairs` holds each J_ij, i < j,
    once: a step of Adam or a soft threshold on it acts on the symmetric coupling itself.
    """

    def __init__(self, dim: int, init_std: float = 0.01, *, bias: bool = False) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f"a quadratic energy needs at least 2 bits, not {dim}")
        self.dim = dim
        rows, columns = torch.triu_indices(dim, dim, offset=1)
        self.pairs = nn.Parameter(init_std * torch.randn(len(rows)))  # (D (D - 1) / 2,)
        self.field = nn.Parameter(torch.zeros(dim)) if bias else None
        pair_index = torch.zeros(dim, dim, dtype=torch.int64)  # its diagonal is never read
        pair_index[rows, columns] = pair_index[columns, rows] = torch.arange(len(rows))
        self.pair_index: Tensor
        self.upper: Tensor
        self.register_buffer("pair_index", pair_index, persistent=False)
        self.register_buffer("upper", rows * dim + columns, persistent=False)

    def couplings(self) -> Tensor:
        """J, (D, D), symmetric with zero diagonal, in the convention log p = s' J s + const; differentiable."""
        flat = self.pairs.new_zeros(self.dim * self.dim).scatter(0, self.upper, self.pairs)
        half = flat.reshape(self.dim, self.dim)
        return half + half.T

    def log_prob(self, x: Tensor) -> Tensor:
        """Unnormalised log density of x (B, D) in nats, (B,)."""
        s = 2 * x - 1
        value = (s @ self.couplings().to(s) * s).sum(-1)
        return value if self.field is None else value + s @ self.field.to(s)

    def log_prob_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log f(x), (B,), and its gradient with respect to x, (B, D), by one matrix product."""
        s = 2 * x - 1
        js = s @ self.couplings().to(s)
        value, grad = (js * s).sum(-1), 4 * js
        if self.field is None:
            return value, grad
        return value + s @ self.field.to(s), grad + 2 * self.field.to(s)

    def conditional_logits(self, x: Tensor) -> Tensor:
        """Log odds of x_i = 1 given all other bits, for every i, (B, D): 4 (J s)_i + 2 b_i."""
        logits = 4 * ((2 * x - 1) @ self.couplings().to(x))
        return logits if self.field is None else logits + 2 * self.field.to(x)

    def pseudo_log_likelihood(self, x: Tensor) -> Tensor:
        """Sum over i of log p(x_i | all other bits), in nats, (B,)."""
        return logsigmoid((2 * x - 1) * self.conditional_logits(x)).sum(-1)

    def flip_delta(self, x: Tensor) -> Tensor:
        """log f(x with bit i flipped) - log f(x) for every i, exact, (B, D)."""
        return (1 - 2 * x) * self.conditional_logits(x)

    def site_delta(self, x: Tensor, i: int | Tensor) -> Tensor:
        """log f(x with bit i flipped) - log f(x), (B,), in O(D); `i` is one site or one site per row, int64 (B,)."""
        s = 2 * x - 1
        couplings = self.pairs[self.pair_index[i]].to(s)  # (D,) or (B, D), wrong at i itself
        if isinstance(i, Tensor):
            s_i = s.gather(1, i[:, None])[:, 0]
            logit = 4 * (s.scatter(1, i[:, None], 0) * couplings).sum(1)
        else:
            s_i = s[:, i].clone()
            s[:, i] = 0
            logit = 4 * (s @ couplings)
        if self.field is not None:
            logit = logit + 2 * self.field[i].to(s)
        return -s_i * logit

    @torch.no_grad()
    def gibbs_sweep(self, x: Tensor, uniforms: Tensor) -> Tensor:
        """The state after sites 0 .. D-1 were drawn in turn from their conditionals given the others.

        Arguments:
            x: States (B, D), left as they are.
            uniforms: Draws from U[0, 1), (D, B).
        """
        couplings = self.couplings().to(x)
        # 4 (J s)_i + 2 b_i > logit(u) written for bits: 8 (J x)_i > logit(u) + 4 sum_j J_ij - 2 b_i
        offset = 4 * couplings.sum(1)
        if self.field is not None:
            offset = offset - 2 * self.field.to(x)
        thresholds = torch.logit(uniforms) + offset[:, None]
        rows = 8 * couplings
        bits = x.T.contiguous()  # (D, B): a site of all chains lies together
        states = bits.T
        for row, threshold, bit in zip(rows, thresholds, bits, strict=True):
            torch.gt(torch.mv(states, row), threshold, out=bit)
        return bits.T.contiguous()


class MLPEnergy(nn.Module):
    """log f(x) as a multilayer perceptron on bits.

    Arguments:
        dim: Number of bits D.
        hidden: Width of every hidden layer.
        num_layers: Number of hidden layers, at least 1.
        activation: `elu` or `swish`.
    """

    def __init__(self, dim: int, hidden: int, num_layers: int, activation: str = "elu") -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is at least 1, not {num_layers}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; one of {', '.join(ACTIVATIONS)}")
        self.dim = dim
        self.activation = ACTIVATIONS[activation]
        self.first = nn.Linear(dim, hidden)
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(num_layers - 1))
        self.last = nn.Linear(hidden, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Unnormalised log density of x (B, D) in nats, (B,)."""
        return self._above(_affine(self.first, x))

    def flip_delta(self, x: Tensor) -> Tensor:
        """log f(x with bit i flipped) - log f(x) for every i, exact, (B, D).

        A flip changes the first layer's pre-activations by one column of its weight, so that layer is computed once.
        """
        before = _affine(self.first, x)  # (B, H)
        sites_per_chunk = max(1, MAX_ROWS // max(1, len(x)))
        columns = torch.split(self.first.weight.T.to(x), sites_per_chunk)
        signs = torch.split(1 - 2 * x, sites_per_chunk, dim=1)
        there = [
            self._above(before[:, None] + sign[:, :, None] * column)  # (B, chunk, H) -> (B, chunk)
            for column, sign in zip(columns, signs, strict=True)
        ]
        return torch.cat(there, dim=1) - self._above(before)[:, None]

    @torch.no_grad()
    def gibbs_sweep(self, x: Tensor, uniforms: Tensor) -> Tensor:
        """The state after sites 0 .. D-1 were drawn in turn from their conditionals given the others.

        Arguments:
            x: States (B, D), left as they are.
            uniforms: Draws from U[0, 1), (D, B).

        Carries log f and the first layer's pre-activations along: one pass through the upper layers per site.
        """
        bits = x.T.contiguous()  # (D, B)
        before = _affine(self.first, x)  # (B, H)
        value = self._above(before)
        thresholds = torch.logit(uniforms)
        for column, threshold, bit in zip(self.first.weight.T.to(x).contiguous(), thresholds, bits, strict=True):
            sign = 1 - 2 * bit
            flipped = torch.addr(before, sign, column)
            there = self._above(flipped)
            flip = (sign * (there - value) > threshold) != (bit > 0.5)
            before = torch.where(flip[:, None], flipped, before)
            value = torch.where(flip, there, value)
            bit.copy_(torch.where(flip, 1 - bit, bit))
        return bits.T.contiguous()

    def _above(self, pre_activation: Tensor) -> Tensor:
        """The layers above the first, from its pre-activations (..., H) to (...)."""
        h = self.activation(pre_activation)
        for layer in self.middle:
            h = self.activation(_affine(cast(nn.Linear, layer), h))
        return _affine(self.last, h).squeeze(-1)


def _affine(layer: nn.Linear, h: Tensor) -> Tensor:
    # exact tools evaluate float32 models on float64 states, which a plain call refuses
    return linear(h, layer.weight.to(h.dtype), layer.bias.to(h.dtype))


def build_energy(kind: str, dim: int, hidden: int, num_layers: int, activation: str) -> QuadraticEnergy | MLPEnergy:
    """A fresh energy on `dim` bits: `quadratic`, or `mlp` of the given shape."""
    return QuadraticEnergy(dim) if kind == "quadratic" else MLPEnergy(dim, hidden, num_layers, activation)


def couplings_of(energy: nn.Module) -> Tensor:
    """J (D, D) of a quadratic energy, detached; MissingCapability for any other."""
    if not isinstance(energy, QuadraticEnergy):
        raise MissingCapability("an energy that is a perceptron has no couplings")
    return energy.couplings().detach()
