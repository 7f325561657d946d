"""The deep belief network: restricted Boltzmann machines in a stack, each fitted to hidden bits of the one below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from gmbench.errors import MissingCapability, UserError
from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Harmonium, Model
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Call, Gradient, Stage, Step, linear_decay

from ..rbm.model import RBM
from ..sparsity import Draw, rows_of

ROWS = 4096  # points that go up or down together


class DBN(Model):
    """p(x) = sum_h p(x | h_1) p(h_1 | h_2) ... p_L(h_{L-1}): directed layers below the last of L machines.

    Machine l is a restricted Boltzmann machine on (h_{l-1}, h_l), with h_0 = x. Greedy learning fits machine 1 to the
    data, then machine l to bits h_{l-1} that the machines below it draw upwards from data. Of machine l < L only the
    conditional p(h_{l-1} | h_l) stays in the model, and its P(h_l | h_{l-1}) is the approximate posterior q, so

        log p(x) >= E_q[log p_L(h_{L-1}) + sum_{l<L} log p(h_{l-1} | h_l) - log q(h_l | h_{l-1})],

    and the mean of the bracket's exponential over draws from q is p(x). p_L is the visible marginal of the last
    machine, whose normalising constant is unknown.

    With `supervised_steps` a copy of the upward weights is trained on classes; only `encode` sees it.

    Sources: G. E. Hinton, S. Osindero, Y.-W. Teh, "A fast learning algorithm for deep belief nets", 2006;
    R. Salakhutdinov, I. Murray, "On the quantitative analysis of deep belief networks", 2008.
    """

    class Config(BaseConfig):
        hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
        """Hidden bits of each machine, from the lowest up."""
        negatives: Literal["cd", "pcd"]
        """Where the chains of an update start: at the batch (`cd`) or where they were (`pcd`)."""
        sampling_steps: int = Field(ge=1)
        """Block Gibbs steps in an update."""
        num_chains: int = Field(ge=1)
        """Persistent chains of each machine; unused by `cd`."""
        num_steps: int = Field(ge=1)
        """Updates of each machine."""
        batch_size: int = Field(ge=1)
        """Training points in an update."""
        learning_rate: float = Field(gt=0)
        """Adam's learning rate in the first half of a machine's updates; it then falls linearly to zero."""
        weight_decay: float = Field(ge=0)
        """Weight of the squared norm of a machine's W, halved, in its loss."""
        sample_steps: int = Field(ge=1)
        """Block Gibbs steps of the last machine from an independent start to each sample."""
        supervised_steps: int = Field(ge=0)
        """Updates that train the features of `encode` to tell classes apart; 0 for none."""
        supervised_learning_rate: float = Field(gt=0)
        """Adam's learning rate in the first half of those updates."""
        num_classes: int = Field(ge=2)
        """Classes of the labelled points; unused without `supervised_steps`."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        c = config
        shared = c.model_dump(include=set(RBM.Config.model_fields))
        sizes = list(pairwise((space.dim, *c.hidden)))
        self.machines = nn.ModuleList(
            RBM(RBM.Config(num_hidden=below_above[1], **shared), BinaryVector(below_above[0])) for below_above in sizes
        )
        self.features: nn.Sequential | None = None
        if c.supervised_steps:
            self.features = nn.Sequential()
            for below, above in sizes:
                self.features.extend([nn.Linear(below, above), nn.Sigmoid()])
            self.classifier = nn.Linear(c.hidden[-1], c.num_classes)

    @property
    def _stack(self) -> list[RBM]:
        return [cast(RBM, machine) for machine in self.machines]

    def stages(self, data: Data) -> Sequence[Stage]:
        """Two stages for each machine, and two more for the features where they are supervised.

        Raises:
            MissingCapability: The features are to be supervised, and the task has no labels.
            UserError: It has more classes than `num_classes`.
        """
        stages: list[Stage] = []
        for depth, machine in enumerate(self._stack):
            draw = self._draw_hidden(data, depth)
            for stage in machine.stages(data):
                stages.append(replace(cast(Gradient, stage), name=f"machine {depth + 1}: {stage.name}", draw=draw))
        return stages + self._supervised_stages(data)

    def _draw_hidden(self, data: Data, depth: int) -> Draw:
        """Batches of h_depth, drawn upwards from training points."""
        draw_points = data.draw if data.train is None else rows_of(data.train)

        @torch.no_grad()
        def draw(num: int, rng: Generator) -> Tensor:
            h = draw_points(num, rng).to(self.device)
            for machine in self._stack[:depth]:
                h = _bits(_upward(machine, h), rng)
            return h

        return draw

    def _supervised_stages(self, data: Data) -> list[Stage]:
        c, labelled = self.config, data.draw_labelled
        if self.features is None:
            return []
        if labelled is None:
            raise MissingCapability("supervised_steps > 0 trains features on classes, and this variant has none")
        if data.num_classes > c.num_classes:
            raise UserError(f"num_classes={c.num_classes}, and the task has {data.num_classes}: set that number")
        features, classifier = self.features, self.classifier
        adam = torch.optim.Adam([*features.parameters(), *classifier.parameters()], lr=c.supervised_learning_rate)

        def draw(num: int, rng: Generator) -> Tensor:
            x, classes = labelled(num, rng)
            return torch.cat([x, classes[:, None].to(x)], dim=1)  # (num, D + 1): a batch is one tensor

        def update(batch: Tensor, step: Step) -> None:
            step.minimize(cross_entropy(classifier(features(batch[:, :-1])), batch[:, -1].long()))

        return [
            Call("copy the upward weights", lambda rng: self._copy_upward()),
            Gradient("classes", c.supervised_steps, c.batch_size, {"main": adam}, update, draw, linear_decay()),
        ]

    @torch.no_grad()
    def _copy_upward(self) -> None:
        assert self.features is not None
        for layer, machine in zip(self.features[::2], self._stack, strict=True):
            cast(nn.Linear, layer).weight.copy_(machine.weight.T)
            cast(nn.Linear, layer).bias.copy_(machine.hidden_bias)

    def harmonium(self) -> Harmonium:
        """The last machine, whose visible marginal is p_L(h_{L-1})."""
        return self._stack[-1].harmonium()

    @torch.no_grad()
    def ascend(self, x: Tensor, *, rng: Generator) -> tuple[Tensor, Tensor]:
        """h_{L-1} (B, V) drawn from q given x (B, D), and the sum over the directed layers, (B,), in nats.

        The sum is that of log p(h_{l-1} | h_l) - log q(h_l | h_{l-1}) over l < L: 0 of a single machine, whose v is x.
        """
        tops, log_weights = [], []
        for rows in x.split(ROWS):
            h, log_weight = rows, x.new_zeros(len(rows))
            for machine in self._stack[:-1]:
                up = _upward(machine, h)
                above = _bits(up, rng)
                log_weight = log_weight + _log_bernoulli(_downward(machine, above), h) - _log_bernoulli(up, above)
                h = above
            tops.append(h)
            log_weights.append(log_weight)
        return torch.cat(tops), torch.cat(log_weights)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` points (num, D): block Gibbs of the last machine from independent starts, then one pass down.

        The draws are independent; their law is the model's only in the limit of many steps.
        """
        *directed, last = self._stack
        drawn = []
        for begin in range(0, num, ROWS):
            h = last.sample(min(ROWS, num - begin), rng=rng)
            for machine in reversed(directed):
                h = _bits(_downward(machine, h), rng)
            drawn.append(h)
        return torch.cat(drawn)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Means of the last hidden layer, each layer fed with the means below it, (B, H_L)."""
        if self.features is not None:
            return cast(Tensor, self.features(x))
        return self._means_upward(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """P(x_i = 1) after a pass up and down through all layers by their means, (B, D)."""
        h = self._means_upward(x)
        for machine in reversed(self._stack):
            h = _downward(machine, h).sigmoid()
        return h

    def _means_upward(self, x: Tensor) -> Tensor:
        for machine in self._stack:
            x = machine.encode(x)
        return x


def _upward(machine: RBM, v: Tensor) -> Tensor:
    """Log odds of the hidden bits given v (B, V), (B, H)."""
    return machine.hidden_bias.to(v) + v @ machine.weight.to(v)


def _downward(machine: RBM, h: Tensor) -> Tensor:
    """Log odds of the visible bits given h (B, H), (B, V)."""
    return machine.visible_bias.to(h) + h @ machine.weight.T.to(h)


def _bits(logits: Tensor, rng: Generator) -> Tensor:
    return (uniforms(tuple(logits.shape), logits, rng) < logits.sigmoid()).to(logits.dtype)


def _log_bernoulli(logits: Tensor, bits: Tensor) -> Tensor:
    """log-probability of bits (B, H) under independent Bernoullis, (B,)."""
    return -softplus((1 - 2 * bits) * logits).sum(1)
