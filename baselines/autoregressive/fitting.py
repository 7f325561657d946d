"""How neural language models are trained: AdamW on all but vectors, a rate that rises and falls, clipped gradients."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW

from gmbench.model import Config
from gmbench.training import cosine

from ..tokens import PAD


class FitConfig(Config):
    """The hyper-parameters of training."""

    num_steps: int = Field(ge=1)
    """Gradient steps."""
    batch_tokens: int = Field(ge=1)
    """Tokens a step on average: as many sequences, or windows, as hold so many by the mean length of validation data,
    so that a step costs the same on texts of any length."""
    learning_rate: float = Field(gt=0)
    """Greatest learning rate of AdamW."""
    warm_up: float = Field(ge=0, lt=1)
    """Share of training in which the learning rate rises linearly; then it falls to 0 along half a cosine."""
    weight_decay: float = Field(ge=0)
    """AdamW's weight decay, of matrices and embeddings."""
    clip: float = Field(gt=0)
    """Largest norm of the gradient."""
    validate_every: int = Field(ge=1)
    """Steps between looks at the validation loss."""


def sequences_per_step(config: FitConfig, x: Tensor) -> int:
    """How many sequences of the mean length of x (N, T) hold `batch_tokens` tokens, at least 1."""
    length = float((x != PAD).sum()) / len(x)
    return max(1, round(config.batch_tokens / length))


def adamw(network: nn.Module, config: FitConfig, betas: tuple[float, float] = (0.9, 0.999)) -> AdamW:
    """The optimizer of a network; biases and norms do not decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True)


def one_cycle(warm_up: float) -> Callable[[float], float]:
    """The factor on the learning rate as a function of the fraction of training that is done.

    Arguments:
        warm_up: The share of training in which it rises, in [0, 1).
    """

    def factor(fraction: float) -> float:
        if fraction < warm_up:
            return (fraction + 1e-3) / (warm_up + 1e-3)  # the first step moves too
        return cosine((fraction - warm_up) / (1 - warm_up))

    return factor
