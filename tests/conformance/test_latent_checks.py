"""The checks of features, reconstructions, latents and harmoniums pass a sound model and catch each planted fault."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.conformance import latents
from gmbench.conformance.checks import Skipped
from gmbench.model import Harmonium
from gmbench.spaces import BinaryVector

NUM, DIM, LATENT = 6, 4, 2


class Sound:
    """Every capability, of four bits and two latents."""

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :2]

    def reconstruct(self, x: Tensor) -> Tensor:
        return 0.8 * x + 0.1

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 1)

    def posterior(self, x: Tensor) -> Distribution:
        return Independent(Normal(x[:, :LATENT], torch.ones(len(x), LATENT)), 1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return -z.square().sum(-1)

    def decode(self, z: Tensor) -> Tensor:
        return z.sigmoid().repeat(1, 2)

    def harmonium(self) -> Harmonium:
        return Harmonium(torch.zeros(3, 5), torch.zeros(3), torch.zeros(5))

    def ascend(self, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return x[:, :3], torch.zeros(len(x))


def under_test(model: Any) -> Any:
    points = (torch.rand(NUM, DIM, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    data = SimpleNamespace(space=BinaryVector(DIM))
    return SimpleNamespace(fitted=model, points=points, data=data, ask=lambda name: getattr(model, name))


CHECKS: dict[str, Callable[[Any], None]] = {
    "encode": latents.features_have_their_shape,
    "reconstruct": latents.reconstructions_are_probabilities,
    "posterior": latents.latents_fit_together,
    "prior": latents.latents_fit_together,
    "log_likelihood": latents.latents_fit_together,
    "decode": latents.decoded_means_are_probabilities,
    "harmonium": latents.harmonium_takes_what_ascends,
    "ascend": latents.harmonium_takes_what_ascends,
}
FAULTS: list[tuple[str, Callable[..., Any], str]] = [
    ("encode", lambda x: x[:, 0], "gave shape"),
    ("encode", lambda x: x / 0, "not finite numbers"),
    ("encode", lambda x: x + torch.rand(1), "other features the second time"),
    ("reconstruct", lambda x: 2 * x, "outside of"),
    ("reconstruct", lambda x: x[:, :2], "gave shape"),
    ("posterior", lambda x: Normal(x[:, :LATENT], 1.0), "prior: "),
    ("posterior", lambda x: Independent(Normal(x, 1.0), 1), "posterior: event"),
    ("prior", lambda: Normal(0.0, 1.0), "event shape"),
    ("log_likelihood", lambda x, z: -z.square().sum((0, -1)), "is expected"),
    ("log_likelihood", lambda x, z: 1 + z.square().sum(-1), "is positive"),
    ("decode", lambda z: z.repeat(1, 2) + 2, "outside of"),
    ("decode", lambda z: z.sigmoid(), "gave shape"),
    ("harmonium", lambda: Harmonium(torch.zeros(5, 3), torch.zeros(3), torch.zeros(5)), "weight is"),
    ("ascend", lambda x, rng: (x, torch.zeros(len(x))), "the harmonium takes"),
    ("ascend", lambda x, rng: (x[:, :3] / 2 + 0.1, torch.zeros(len(x))), "other than 0 and 1"),
    ("ascend", lambda x, rng: (x[:, :3], torch.zeros(1)), "log weights of shape"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_model_passes(name: str) -> None:
    CHECKS[name](under_test(Sound()))


@pytest.mark.parametrize(("name", "fault", "said"), FAULTS)
def test_a_fault_is_caught(name: str, fault: Callable[..., Any], said: str) -> None:
    model = Sound()
    setattr(model, name, fault)
    with pytest.raises(Exception, match=said) as caught:
        CHECKS[name](under_test(model))
    assert "\n" not in str(caught.value)


def test_latents_need_each_other_and_may_be_missing() -> None:
    sound = Sound()
    partial = SimpleNamespace(prior=sound.prior, posterior=sound.posterior)
    with pytest.raises(Exception, match="log_likelihood"):
        latents.latents_fit_together(under_test(partial))
    with pytest.raises(Skipped):
        latents.latents_fit_together(under_test(SimpleNamespace(encode=sound.encode)))


def test_answers_that_draw_nothing_are_compared() -> None:
    model = under_test(Sound())
    found = latents.deterministic_answers(model.fitted, model.points)
    assert set(found) == {"encode", "reconstruct", "posterior", "decode", "log_likelihood", "harmonium"}
    assert found["log_likelihood"].shape == (1, NUM)
