"""The memoriser gives back training points, all of them, and nothing else."""

from __future__ import annotations

import torch

from gmbench.baselines.reference.memoriser.model import Memoriser
from gmbench.model import Data
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer


def test_samples_are_training_points() -> None:
    rows = torch.eye(6)
    data = Data(BinaryVector(6), rows, lambda num, rng: rows[torch.randint(6, (num,), generator=rng)], rows)
    model = Memoriser(Memoriser.Config(num_points=200), data.space)
    Trainer(seed=0).fit(model, data)
    drawn = model.sample(300, rng=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32 and bool((drawn.sum(1) == 1).all())
    assert bool((drawn.sum(0) > 20).all())
    assert torch.equal(drawn[:5], model.sample(300, rng=torch.Generator().manual_seed(0))[:5])
