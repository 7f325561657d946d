"""The harness's training loop beside a bare torch loop with the same step (select with -m benchmark).

The two are measured in turn within one process, on one thread (OMP_NUM_THREADS=1), since a machine's speed drifts; the
time is the process's own. The target is an overhead below 2 % at about 10 ms a step: `extra_info` has the ratio there,
with everything that a fit does once, and, more exactly, the microseconds that a step of next to no work costs more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from gmbench.model import Config, Data, Model
from gmbench.progress import LogLines
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, Trainer

NUM_BITS = 64


class NetConfig(Config):
    width: int
    num_steps: int
    batch_size: int


class Net(Model):
    """A network of two hidden layers."""

    def __init__(self, config: NetConfig, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.net = nn.Sequential(
            nn.Linear(space.dim, config.width), nn.SiLU(),
            nn.Linear(config.width, config.width), nn.SiLU(),
            nn.Linear(config.width, space.dim),
        )  # fmt: skip

    def stages(self, data: Data) -> list[Stage]:
        optimizer = torch.optim.Adam(self.parameters())
        return [Gradient("fit", self.config.num_steps, self.config.batch_size, {"main": optimizer}, self.step)]

    def loss(self, batch: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self.net(batch), batch)

    def step(self, batch: Tensor, step: Step) -> None:
        step.minimize(self.loss(batch))


def bare(model: Net, data: Data) -> None:
    """The loop that one would write for this model alone, with the check for NaN that anybody should have."""
    optimizer, rng = torch.optim.Adam(model.parameters()), torch.Generator().manual_seed(0)
    model.train()
    for _ in range(model.config.num_steps):
        loss = model.loss(data.draw(model.config.batch_size, rng))
        optimizer.zero_grad(set_to_none=True)
        if not loss.isfinite():
            raise FloatingPointError
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("config", "num_pairs"),
    [
        (NetConfig(width=640, num_steps=100, batch_size=256), 15),
        (NetConfig(width=1, num_steps=2000, batch_size=1), 15),
    ],
    ids=["10 ms a step", "no work"],
)
def test_loop_overhead(benchmark: Any, tmp_path: Path, config: NetConfig, num_pairs: int) -> None:
    train = torch.randint(2, (2000, NUM_BITS), generator=torch.Generator().manual_seed(0)).float()

    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    data = Data(BinaryVector(NUM_BITS), train, draw, train)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(config, BinaryVector(NUM_BITS))
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spent: dict[str, list[float]] = {"bare": [], "harness": []}

    def timed(name: str, loop: Callable[[], object]) -> None:
        model.load_state_dict(initial)
        begin = time.process_time()
        loop()
        spent[name].append(time.process_time() - begin)
        assert not model.state_dict()["net.0.weight"].equal(initial["net.0.weight"])

    def pair() -> None:
        folder = tmp_path / str(len(spent["bare"]))
        folder.mkdir()
        trainer = Trainer(folder=folder, progress=LogLines())
        loops = [("bare", lambda: bare(model, data)), ("harness", lambda: trainer.fit(model, data))]
        first = len(spent["bare"]) % 2  # each goes first half of the time
        timed(*loops[first])
        timed(*loops[1 - first])

    benchmark.pedantic(pair, rounds=num_pairs, warmup_rounds=1)
    pairs = list(zip(spent["harness"][1:], spent["bare"][1:], strict=True))
    benchmark.extra_info.update(
        bare_ms_a_step=1e3 * statistics.median(theirs for _, theirs in pairs) / config.num_steps,
        ratio=statistics.median(ours / theirs for ours, theirs in pairs),
        extra_us_a_step=1e6 * statistics.median(ours - theirs for ours, theirs in pairs) / config.num_steps,
    )
