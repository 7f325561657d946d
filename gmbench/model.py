"""The model contract: a typed config, stages of fitting, and capabilities once fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.distributions import Distribution

from gmbench.errors import MissingCapability
from gmbench.estimate import Kind
from gmbench.spaces import Space

if TYPE_CHECKING:
    from gmbench.samplers.kernel import Kernel
    from gmbench.training import Stage


class Config(BaseModel):
    """Base of every model's hyper-parameters: frozen, typed, bounded; an unknown name is an error.

    Fields have no defaults in code: the values live in the model's card. A field's docstring is its help text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Data:
    """What a task gives a model to fit.

    Arguments:
        space: The space of the points.
        train: The fixed training set (N, ...), or None where training draws are unlimited.
        draw: `draw(num, rng)` gives a training batch (num, ...): fresh draws, or rows of `train` with replacement.
        validation: Held-out points (M, ...) on which checkpoints and hyper-parameters may be chosen.
        truth: The true distribution; the harness hands it to reference rows only, every other model gets None.
        draw_labelled: `draw_labelled(num, rng)` gives training points (num, ...) with their classes, int64 (num,);
            None where the task has no labels.
        num_classes: How many classes those are; 0 where there are none.
    """

    space: Space
    train: Tensor | None
    draw: Callable[[int, torch.Generator], Tensor]
    validation: Tensor
    truth: Any = None
    draw_labelled: Callable[[int, torch.Generator], tuple[Tensor, Tensor]] | None = None
    num_classes: int = 0

    @property
    def fixed(self) -> Tensor:
        """The training set, where there must be one."""
        if self.train is None:
            raise MissingCapability("this model needs a fixed training set, and this variant has unlimited draws")
        return self.train


@dataclass(frozen=True)
class Likelihood:
    """What a model's `log_prob` is.

    Arguments:
        subject: Which of the model's distributions; "" where it has only one.
        estimator: How it is computed, with its budget: `exact`, `traj20` …
        kind: The kind of estimate that log_prob is of log p(x): `exact`, or a `lower_bound`, …
    """

    subject: str = ""
    estimator: str = "exact"
    kind: Kind = "exact"

    @property
    def key(self) -> str:
        return f"{self.subject}.{self.estimator}" if self.subject else self.estimator


class Harmonium(NamedTuple):
    """A restricted Boltzmann machine's parameters: p(v, h) ~ exp(v'W h + b'v + c'h) on bits v (V,) and h (H,)."""

    weight: Tensor
    """W (V, H)."""
    visible_bias: Tensor
    """b (V,)."""
    hidden_bias: Tensor
    """c (H,)."""


class Model(nn.Module):
    """Something that can be fitted to a task and then has some capabilities.

    A subclass names its `Config`, builds its parameters in `__init__(config, space)`, and returns from `stages` how
    it is fitted. All state that matters is in parameters, buffers and the stages' optimizers, so that a checkpoint
    holds it; buffers have their final shape from the start, or the model overrides `_load_from_state_dict` to take the
    stored sizes. Capabilities are methods with the signatures below.
    """

    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Any, space: Space) -> None:
        super().__init__()
        self.config = config
        self.space = space

    def stages(self, data: Data) -> Sequence[Stage]:
        """How the model is fitted, in order; an empty sequence where there is nothing to fit."""
        raise NotImplementedError

    def warm_start(self, name: str, parent: Model) -> None:
        """Takes what it needs from the fitted model that the card's `[inputs]` calls `name`."""
        raise NotImplementedError(f"{type(self).__name__} takes no input {name!r}")

    @property
    def num_parameters(self) -> int:
        """How many numbers were fitted by gradient, as leaderboards show it; of a model that reads them, its own."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


@runtime_checkable
class Samples(Protocol):
    def sample(self, num: int, *, given: Any = None, rng: torch.Generator) -> Tensor:
        """`num` independent draws (num, ...) of the model, given a condition where the task has one.

        A model that takes no condition must not ignore one: draws from p(x) would be measured as draws from p(x | c).

        Raises:
            MissingCapability: A condition is given, and the model takes none; or it needs one, and none is given.
        """


@runtime_checkable
class HasLogProb(Protocol):
    likelihood: Likelihood

    def log_prob(self, x: Tensor, *, rng: torch.Generator) -> Tensor:
        """log p(x) in nats (B,), of the kind that `likelihood` states."""


@runtime_checkable
class HasTokenLogProb(Protocol):
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_1 … x_t-1) in nats of every position of sequences x (B, T), (B, T); 0 where x is padding.

        Their sum over a row is log p(x), exact. Of pairs: of the target's positions, given the source, (B, T).
        """


@runtime_checkable
class HasPseudoLogProb(Protocol):
    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Sum over t of log p(x_t | all other tokens) in nats (B,) of sequences x (B, T): no log-probability of x."""


@runtime_checkable
class ScoresText(Protocol):
    def score_text(self, texts: list[str]) -> Tensor:
        """log p in nats of each text as it is written, its end included, (B,), float64; the model splits it itself."""


class TokenCounts(NamedTuple):
    """How many tokens a model makes of texts."""

    splitting: str
    """Names the vocabulary, in letters and digits: counts of tokens of two vocabularies do not compare."""
    num: Tensor
    """(B,), int64."""


@runtime_checkable
class CountsTokens(Protocol):
    def count_tokens(self, texts: list[str]) -> TokenCounts:
        """The tokens whose log p `score_text` adds up, of each text, its end included."""


@runtime_checkable
class Chooses(Protocol):
    def choose(self, contexts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[Tensor]:
        """log p in nats of each answer as it continues its context, a tensor (num_answers,) for each of N contexts."""


@runtime_checkable
class Attends(Protocol):
    def attention(self, x: Tensor) -> Tensor:
        """How much each position of the target looks at each of the source, (B, T, S), of pairs x (B, S + T).

        Rows sum to one over the source's positions; padded positions of the source get nothing.
        """


@runtime_checkable
class HasEnergy(Protocol):
    def energy(self, x: Tensor) -> Tensor:
        """E(x) (B,), with p(x) proportional to exp(-E(x))."""


@runtime_checkable
class HasCouplings(Protocol):
    def couplings(self) -> Tensor:
        """J (D, D), symmetric, zero diagonal, with log p(s) = s'Js - log Z for spins s = 2x - 1."""


@runtime_checkable
class HasSampler(Protocol):
    def sampler(self) -> Kernel:
        """The Markov kernel, stationary for exp(-energy), with which the model draws its negatives."""


@runtime_checkable
class HasHarmonium(Protocol):
    def harmonium(self) -> Harmonium:
        """The machine whose visible marginal is p(x); of a model with `ascend`, its top layers."""


@runtime_checkable
class Ascends(Protocol):
    def ascend(self, x: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Bits v ~ q(v | x) (B, V) for the harmonium, and log p(x | v) - log q(v | x) (B,)."""


@runtime_checkable
class HasPrior(Protocol):
    def prior(self) -> Distribution:
        """p(z) of the latents, with an event shape of (Z,)."""


@runtime_checkable
class HasPosterior(Protocol):
    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x), or p(z | x) where it is tractable: batch shape (B,), event shape (Z,)."""


@runtime_checkable
class HasLogLikelihood(Protocol):
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats (K, B) of points x (B, ...) given latents z (K, B, Z), exact."""


@runtime_checkable
class Decodes(Protocol):
    def decode(self, z: Tensor) -> Tensor:
        """The mean E[x | z] (B, ...) of points given latents z (B, Z); of sequences: the likeliest, as far as found."""


@runtime_checkable
class Encodes(Protocol):
    def encode(self, x: Tensor) -> Tensor:
        """Features of points x, (B, F), deterministic."""


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, x: Tensor) -> Tensor:
        """Points x as the model gives them back, (B, ...), deterministic; of bits: probabilities in [0, 1].

        Of sequences: sequences.
        """


CAPABILITIES: dict[str, type] = {
    "sample": Samples,
    "log_prob": HasLogProb,
    "token_log_prob": HasTokenLogProb,
    "pseudo_log_prob": HasPseudoLogProb,
    "score_text": ScoresText,
    "count_tokens": CountsTokens,
    "choose": Chooses,
    "attention": Attends,
    "energy": HasEnergy,
    "couplings": HasCouplings,
    "sampler": HasSampler,
    "harmonium": HasHarmonium,
    "ascend": Ascends,
    "prior": HasPrior,
    "posterior": HasPosterior,
    "log_likelihood": HasLogLikelihood,
    "decode": Decodes,
    "encode": Encodes,
    "reconstruct": Reconstructs,
}


def offers(model: object, capability: str) -> bool:
    """Whether the model has the methods of a capability (which may still decline under some configurations)."""
    return isinstance(model, CAPABILITIES[capability])
