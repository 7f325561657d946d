"""The fit of the VAE and the IWAE beside the plainest torch loop of the same network (select with -m benchmark).

`extra_info` has `speed_ratio`, the plain loop's time over the harness's: the target is at least .98. The plain loop has
torch's default Adam, draws from the global generator and keeps no best weights; the harness looks at validation data
once, at one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from gmbench.baselines.latent.vae.model import VAE
from gmbench.model import Data
from gmbench.plugin import ModelCard, read_manifest
from gmbench.spaces import BinaryVector

FOLDER = Path(__file__).parents[2] / "baselines" / "latent" / "vae"
NUM_STEPS = 150


def plain_loss(model: VAE, x: Tensor) -> Tensor:
    """The bounds as one would write them first."""
    mean, log_std = model.network.encoder(x).chunk(2, 1)
    std, decoder = log_std.exp(), model.network.decoder
    if model.config.bound == "elbo":
        logits = decoder(mean + std * torch.randn_like(std))
        nll = binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean**2 + std**2 - 1 - 2 * log_std).sum()
        loss: Tensor = (nll + kl) / len(x)
        return loss
    num = model.config.num_samples
    q = Normal(mean, std)
    z = q.rsample((num,))  # (K, B, Z)
    x = x.expand(num, -1, -1)
    log_likelihood = -binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(2)
    log_weights = log_likelihood + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(2)
    return -(torch.logsumexp(log_weights, 0) - math.log(num)).mean()


def plain_loop(model: VAE, data: Data) -> None:
    """What one would write for this model alone, with the check for NaN that anybody should have."""
    rng = Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.network.parameters(), model.config.learning_rate)
    for _ in range(model.config.num_steps):
        loss = plain_loss(model, data.draw(model.config.batch_size, rng))
        optimizer.zero_grad()
        if not loss.isfinite():
            raise FloatingPointError
        loss.backward()
        optimizer.step()


@pytest.mark.benchmark
@pytest.mark.parametrize(("bound", "num_samples"), [("elbo", 1), ("iwae", 5)])
@pytest.mark.parametrize(("side", "latent_dim"), [(8, 16), (28, 50)])
def test_vae_step(side_by_side: Callable[..., None], side: int, latent_dim: int, bound: str, num_samples: int) -> None:
    card, dim = read_manifest(FOLDER), side * side
    assert isinstance(card, ModelCard)
    changes = {"bound": bound, "num_samples": num_samples, "latent_dim": latent_dim}
    changes |= {"num_steps": NUM_STEPS, "validate_every": NUM_STEPS}
    train = (torch.rand(2000, dim, generator=Generator().manual_seed(0)) < 0.2).float()

    def draw(num: int, rng: Generator) -> Tensor:
        return train[torch.randint(len(train), (num,), generator=rng)]

    space = BinaryVector(dim, (side, side))
    data = Data(space, train, draw, train[:1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(VAE.Config(**card.resolve("dynamic_mnist", "small") | changes), space)
    side_by_side(model, model.network, data, lambda: plain_loop(model, data), NUM_STEPS)
