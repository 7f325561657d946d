"""An MLP, and its evaluation along a path of inputs that change one coordinate at a time, with the gradient by hand.

A trajectory of a GFlowNet over D locations evaluates one network D + 1 times. Automatic differentiation of that chain
keeps thousands of small nodes alive and forms every masked softmax twice; but the wanted gradient is a sum over steps
of (a known vector) * d(outputs at this step)/d(weights), so each step can be differentiated on its own, and

- the pre-activation of the first layer moves by one column of W_1 when one coordinate moves: no matrix product;
- its weight gradient needs, for each move, only the sum of the later dL/dz_1: a reverse cumulative sum;
- where one output per row is wanted, only that row of the last layer is touched.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.01  # torch's default for LeakyReLU, which the published code uses


class MLP(nn.Module):
    """Linear layers with LeakyReLU between them.

    Arguments:
        num_inputs: Size of the input.
        num_outputs: Size of the output.
        hidden: Width of the hidden layers.
        num_layers: How many hidden layers, at least 1.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, hidden: int, num_layers: int) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"an MLP here has at least one hidden layer, not {num_layers}")
        sizes = [num_inputs, *[hidden] * num_layers, num_outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, s: Tensor) -> Tensor:
        """(B, num_inputs) -> (B, num_outputs)."""
        for layer in self.layers[:-1]:
            s = F.leaky_relu(layer(s), _SLOPE)
        outputs: Tensor = self.layers[-1](s)
        return outputs


class StepwisePass:
    """The evaluations of an MLP along N paths: `outputs`, `move`, `outputs`, `move` ... and then the gradient.

    Use it under `torch.no_grad`. With `record`, every evaluation keeps its hidden activations, that is
    N * hidden * num_layers numbers a step, until `gradients` has been called.

    Arguments:
        mlp: The network; its weights must not change before `gradients`.
        s: (N, num_inputs), the inputs at the start of the paths.
        record: Whether `gradients` will be asked for.
    """

    def __init__(self, mlp: MLP, s: Tensor, *, record: bool) -> None:
        parameters = [p.detach() for p in mlp.parameters()]
        self.weights, self.biases = parameters[::2], parameters[1::2]
        self.columns = self.weights[0].t().contiguous()  # (num_inputs, hidden), so that a column is one run of memory
        self.start = s.clone()
        self.z = F.linear(s, self.weights[0], self.biases[0])  # (N, hidden)
        self.record = record
        self.activations: list[list[Tensor]] = []  # of each evaluation: h_1 ... h_L, each (N, hidden)
        self.chosen: list[Tensor | None] = []
        self.scores: list[Tensor] = []
        self.moves: list[tuple[Tensor, Tensor]] = []

    def outputs(self, chosen: Tensor | None = None) -> Tensor:
        """The network at the present inputs: (N, num_outputs), or (N,) if `chosen` (N,) names one output per row."""
        activations = [F.leaky_relu(self.z, _SLOPE)]
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            activations.append(F.leaky_relu_(F.linear(activations[-1], weight, bias), _SLOPE))
        if self.record:
            self.activations.append(activations)
            self.chosen.append(chosen)
        weight, bias = self.weights[-1], self.biases[-1]
        if chosen is None:
            return F.linear(activations[-1], weight, bias)
        return (activations[-1] * F.embedding(chosen, weight)).sum(1) + bias[chosen]

    def record_score(self, score: Tensor) -> None:
        """Names the derivative of the row's path quantity by the outputs just returned; same shape as those."""
        if self.record:
            self.scores.append(score)

    def move(self, location: Tensor, change: Tensor) -> None:
        """Adds change (N,) to the inputs' coordinate location (N,), one per row."""
        self.z.addcmul_(F.embedding(location, self.columns), change[:, None])
        if self.record:
            self.moves.append((location, change))

    def gradients(self, scale: Tensor) -> list[Tensor]:
        """sum_n scale_n sum_k score_nk . d outputs_nk / d parameters, in the order of `mlp.parameters()`.

        Arguments:
            scale: (N,), for example the derivative of a loss by each row's path quantity.
        """
        scale = scale.to(self.z.dtype)
        d_weights = [torch.zeros_like(weight) for weight in self.weights]
        d_biases = [torch.zeros_like(bias) for bias in self.biases]
        d_columns = torch.zeros_like(self.columns)
        later = torch.zeros_like(self.z)  # sum of dL/dz_1 over this and all later evaluations
        for k in range(len(self.scores) - 1, -1, -1):
            if k < len(self.moves):
                location, change = self.moves[k]
                d_columns.index_add_(0, location, later * change[:, None])
            later += self._backward_step(k, scale, d_weights, d_biases)
        d_weights[0] = d_columns.t() + later.t() @ self.start
        d_biases[0] = later.sum(0)
        return [d for pair in zip(d_weights, d_biases, strict=True) for d in pair]

    def _backward_step(self, k: int, scale: Tensor, d_weights: list[Tensor], d_biases: list[Tensor]) -> Tensor:
        """Adds evaluation k's part to the gradients of layers 2 and up; returns its dL/dz_1 (N, hidden)."""
        activations, chosen = self.activations[k], self.chosen[k]
        if chosen is None:
            dz = self.scores[k] * scale[:, None]  # (N, num_outputs)
            d_weights[-1].addmm_(dz.t(), activations[-1])
            d_biases[-1] += dz.sum(0)
            dh = dz @ self.weights[-1]
        else:
            dz = self.scores[k] * scale  # (N,)
            d_weights[-1].index_add_(0, chosen, activations[-1] * dz[:, None])
            d_biases[-1].index_add_(0, chosen, dz)
            dh = F.embedding(chosen, self.weights[-1]) * dz[:, None]
        for layer in range(len(activations) - 1, 0, -1):
            dz = _leaky_relu_backward(dh, activations[layer])
            d_weights[layer].addmm_(dz.t(), activations[layer - 1])
            d_biases[layer] += dz.sum(0)
            dh = dz @ self.weights[layer]
        return _leaky_relu_backward(dh, activations[0])


def _leaky_relu_backward(dh: Tensor, h: Tensor) -> Tensor:
    # One fused pass; the sign of the result h tells the sign of z, since the slope is positive.
    dz: Tensor = torch.ops.aten.leaky_relu_backward(dh, h, _SLOPE, True)
    return dz
