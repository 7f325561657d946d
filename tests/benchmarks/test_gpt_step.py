"""The fit of GPT beside the plainest loop of the same network (select with -m benchmark).

See `side_by_side`; the target of `speed_ratio` is at least .98. The plain loop is nanoGPT's: a batch as one rectangle,
cross-entropy of all positions at once, AdamW with two groups of parameters, clipped gradients, and the check for NaN
that anybody should have. It keeps no best weights, and its rate is constant.

`windows` have no padding, so both compute the same; `sentences` are the grammar's lengths (about geometric, mean 11),
of which the plain loop cuts off only the columns that are padding in every row.

With 5000 words the logits of a step are 15 MB, which glibc gives back to the kernel and asks for again, in either loop
and in one more than in the other: 5 to 13 of 45 ms, by which the ratio varies from .92 to 1.00. With
MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ of a gigabyte that time is 0, and the ratio 1.01.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from gmbench.baselines.autoregressive.gpt.model import GPT
from gmbench.baselines.tokens import finished, shifted, trimmed
from gmbench.model import Data
from gmbench.plugin import ModelCard, read_manifest
from gmbench.spaces import TokenSequence

FOLDER = Path(__file__).parents[2] / "baselines" / "autoregressive" / "gpt"


def plain_loop(model: GPT, data: Data, num: int) -> None:
    rng, network = Generator().manual_seed(0), model.network
    network.train()
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=model.config.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    for _ in range(model.config.num_steps):
        x = trimmed(data.draw(num, rng))
        logits = network.logits(network.hidden(shifted(x)))  # (B, T, V - 1)
        loss = cross_entropy(logits.flatten(0, 1), (x - 1).flatten(), ignore_index=-1)
        optimizer.zero_grad(set_to_none=True)
        if not loss.isfinite():
            raise FloatingPointError
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), model.config.clip)
        optimizer.step()


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("kind", "vocab_size", "num_steps"), [("windows", 46, 60), ("windows", 5000, 60), ("sentences", 46, 30)]
)
def test_gpt_step(side_by_side: Callable[..., None], kind: str, vocab_size: int, num_steps: int) -> None:
    card = read_manifest(FOLDER)
    assert isinstance(card, ModelCard)
    rng = Generator().manual_seed(0)
    space = TokenSequence(vocab_size, 64, ends=kind == "sentences")
    train = torch.randint(2, vocab_size, (1000, 64), generator=rng)
    num = 12
    if space.ends:
        train[torch.rand(train.shape, generator=rng) < 1 / 11] = space.EOS
        train = finished(train)
        num = round(750 / float((train != 0).sum(1).float().mean()))

    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    # one look at a row or two, where the plain loop does not look at all
    held_out = train[(train != 0).sum(1).argsort()[len(train) // 2 :]][:2] if space.ends else train[:1]
    tokens = round(num * float((held_out != 0).sum()) / len(held_out))
    changes = {"num_steps": num_steps, "validate_every": num_steps, "batch_tokens": tokens}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(GPT.Config(**card.resolve("pcfg", "small") | changes), space)
    data = Data(space, train, draw, held_out)
    assert model.stages(data)[0].batch_size == num  # type: ignore[union-attr]
    side_by_side(model, model.network, data, lambda: plain_loop(model, data, num), num_steps)
