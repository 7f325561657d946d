"""Independent coins: everything about the truth is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate
from gmbench.model import Data, HasLogProb, Likelihood, Samples
from gmbench.plugin import TaskCard
from gmbench.spaces import BinaryVector
from gmbench.task import Context, Measurement, Task

MEANS = {"mild": (0.3, 0.5, 0.6, 0.7), "strong": (0.05, 0.9, 0.1, 0.95)}


class TrueCoins:
    """The true distribution."""

    likelihood = Likelihood()

    def __init__(self, means: Tensor) -> None:
        self.means = means

    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        return (torch.rand(num, len(self.means), generator=rng) < self.means).float()

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        return (x * self.means.log() + (1 - x) * (-self.means).log1p()).sum(-1)


class Coins(Task):
    """Four coins, mildly or strongly biased."""

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        self.space = BinaryVector(card.protocol["num_bits"])
        self.truth = TrueCoins(torch.tensor(MEANS[self.variant["bias"]]))
        self.test = self.truth.sample(card.protocol["num_test"], rng=self.rng("test"))

    def data(self, seed: int) -> Data:
        train = self.truth.sample(self.card.protocol["num_train"], rng=self.rng("train", seed))
        validation = self.truth.sample(200, rng=self.rng("validation"))

        def draw(num: int, rng: Generator) -> Tensor:
            return train[torch.randint(len(train), (num,), generator=rng)]

        return Data(self.space, train, draw, validation, self.truth)

    def measure_excess_nats(self, model: HasLogProb, context: Context) -> Measurement:
        gaps = self.truth.log_prob(self.test, rng=context.rng) - model.log_prob(self.test, rng=context.rng)
        key = f"excess_nats.{model.likelihood.key}"
        estimate = Estimate(value=gaps.mean().item(), stderr=gaps.std().item() / len(gaps) ** 0.5, n=len(gaps))
        return Measurement({key: estimate}, headline=key, per_point=gaps)

    def measure_bit_error(self, model: Samples, context: Context) -> Measurement:
        x = context.draws(self.budget["num_samples"])
        worst = (x.mean(0) - self.truth.means).abs().max().item()
        note = "a maximum has no simple standard error"
        return Measurement(
            {"bit_error": Estimate(value=worst, n=len(x), kind="consistent", note=note)}, pictures={"bits": _PNG}
        )

    def measure_coupling_norm(self, model: object, context: Context) -> Measurement:
        raise AssertionError("no coin model has couplings")


# A picture of one pixel.
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b550000000a49444154789c63600000000200 01 48afa471"
    "0000000049454e44ae426082".replace(" ", "")
)
