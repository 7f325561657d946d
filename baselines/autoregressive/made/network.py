"""The masked network of MADE: all D conditionals in one pass over the bits, and samples for the arithmetic of one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, logsigmoid, relu


class MaskedNetwork(nn.Module):
    """log p(x) = sum_k log p(z_k | z_1 .. z_{k-1}) for the bits z of x taken in a fixed order.

    Every hidden unit has a degree m in 1 .. D - 1 and sees the first m bits only: a unit of the first layer is
    connected to inputs 1 .. m, one above to units of degree at most m, output k to units of degree below k. Units are
    sorted by degree, so that those which a new bit completes lie side by side.

    Arguments:
        dim: Number of bits D, at least 2.
        hidden: Units H of every hidden layer; their degrees are spread evenly over 1 .. D - 1.
        num_layers: Number of hidden layers, at least 1.
        order: The bits in the order in which they are generated, (D,) int64, a permutation of 0 .. D - 1.
        direct: Whether output k also sees the bits before it directly (the paper's direct connections A).
        dropout: Probability with which a hidden unit is dropped in training.

    Source: M. Germain, K. Gregor, I. Murray, H. Larochelle, "MADE: Masked Autoencoder for Distribution Estimation",
    2015, arXiv 1502.03509.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        num_layers: int,
        order: Tensor,
        *,
        direct: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not torch.equal(order.sort().values, torch.arange(dim)):
            raise ValueError("the order must name every bit once")
        self.dim, self.dropout = dim, dropout
        degrees = 1 + torch.arange(hidden) * (dim - 1) // hidden  # (H,), sorted
        # num_below[m]: how many hidden units have a degree below m
        self.num_below = [int((degrees < m).sum()) for m in range(dim + 1)]
        positions = torch.arange(dim)
        self.layers = nn.ModuleList(nn.Linear(hidden if i else dim, hidden) for i in range(num_layers))
        self.last = nn.Linear(hidden, dim)
        self.direct = nn.Parameter(torch.zeros(dim, dim)) if direct else None
        self.order: Tensor
        self.first_mask: Tensor
        self.middle_mask: Tensor
        self.last_mask: Tensor
        self.direct_mask: Tensor
        for name, tensor in {
            "order": order.clone(),
            "first_mask": (positions < degrees[:, None]).float(),  # (H, D)
            "middle_mask": (degrees <= degrees[:, None]).float(),  # (H, H)
            "last_mask": (degrees <= positions[:, None]).float(),  # (D, H)
            "direct_mask": (positions < positions[:, None]).float(),  # (D, D)
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    def weights(self) -> list[Tensor]:
        """The masked weight matrices of the hidden layers and the output, in order."""
        masks = [self.first_mask] + [self.middle_mask] * (len(self.layers) - 1) + [self.last_mask]
        return [layer.weight * mask for layer, mask in zip([*self.layers, self.last], masks, strict=True)]

    def logits(self, x: Tensor) -> Tensor:
        """Log odds of x_i = 1 given the bits before it in the order, for every bit i of x (B, D): (B, D)."""
        s = h = 2 * x[:, self.order] - 1
        *inner, outer = self.weights()
        for layer, weight in zip(self.layers, inner, strict=True):
            h = dropout(relu(linear(h, weight, layer.bias)), self.dropout, self.training)
        ordered = linear(h, outer, self.last.bias)
        if self.direct is not None:
            ordered = ordered + linear(s, self.direct * self.direct_mask)
        return torch.empty_like(ordered).index_copy(1, self.order, ordered)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of x (B, D), exact, (B,)."""
        return logsigmoid((2 * x - 1) * self.logits(x)).sum(1)

    @torch.no_grad()
    def sample(self, num: int, *, rng: torch.Generator) -> Tensor:
        """`num` independent draws (num, D).

        Bit after bit; but since a unit of degree m never sees a later bit, each unit is computed once, when bit m is
        known: D small steps whose arithmetic adds up to one pass.
        """
        *inner, outer = self.weights()
        device = outer.device
        u = torch.rand(self.dim, num, generator=rng, device=rng.device).to(device)
        thresholds = torch.logit(u)
        s = torch.zeros(self.dim, num, device=device)  # spins of the bits drawn so far, in order
        hs = [torch.zeros(len(weight), num, device=device) for weight in inner]
        for k in range(self.dim):
            low, high = self.num_below[k], self.num_below[k + 1]  # units of degree k: complete now
            below, width = s, k
            for layer, weight, h in zip(self.layers, inner, hs, strict=True):
                if high > low:
                    h[low:high] = relu(weight[low:high, :width] @ below[:width] + layer.bias[low:high, None])
                below, width = h, high
            logit = outer[k, :width] @ below[:width] + self.last.bias[k]
            if self.direct is not None:
                logit = logit + self.direct[k, :k] @ s[:k]
            s[k] = 2.0 * (logit > thresholds[k]) - 1
        return torch.empty_like(s).index_copy(0, self.order, (s + 1) / 2).T.contiguous()
