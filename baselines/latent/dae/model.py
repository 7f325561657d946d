"""The denoising autoencoder on bits as a generative model: a Markov chain that corrupts and denoises in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from gmbench.model import Config as BaseConfig
from gmbench.model import Data, Model
from gmbench.randomness import stream
from gmbench.samplers.noise import uniforms
from gmbench.spaces import BinaryVector
from gmbench.training import Gradient, Stage, Step, cosine

from .. import bits
from ..best import Best
from ..networks import ACTIVATIONS, DenseDecoder, dense

VALIDATION_ROWS = 1000


def corrupt(x: Tensor, noise: float, rng: Generator) -> Tensor:
    """C(x~ | x): every bit of x (B, D) is replaced by a fair coin with probability `noise` (salt and pepper)."""
    u = uniforms(tuple(x.shape), x, rng)
    # below noise / 2 pepper, below noise salt, and above it the bit itself
    return torch.where(u < noise, (u >= noise / 2).to(x.dtype), x)


class Denoiser(nn.Module):
    """P(x | x~) = prod_i Bernoulli(x_i), its log odds a perceptron of x~."""

    def __init__(self, dim: int, hidden: int, num_layers: int, activation: str) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*dense([dim, *[hidden] * num_layers], activation), ACTIVATIONS[activation]())
        self.decoder = DenseDecoder(*dense([hidden, dim], activation))

    def forward(self, x: Tensor) -> Tensor:
        """Log odds (B, D) of the bits of x given x~ (B, D)."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


class DAE(Model):
    """Learns P(x | x~) of the point x that was corrupted to x~ ~ C(. | x); the chain x -> x~ -> x samples the data.

    If P(x | x~) were exact, the data's distribution would be what the chain x~ ~ C(. | x), x ~ P(. | x~) leaves
    invariant. The bits of P are independent given x~, so the corruption must be so weak that a single image
    explains x~, and so strong that the chain moves. Walkback training also denoises what the model's own chain reaches
    from a training point in a few steps, always towards that point, which removes modes away from the data.

    Sources: P. Vincent, H. Larochelle, Y. Bengio, P.-A. Manzagol, "Extracting and Composing Robust Features with
    Denoising Autoencoders", 2008; Y. Bengio, L. Yao, G. Alain, P. Vincent, "Generalized Denoising Auto-Encoders as
    Generative Models", 2013, arXiv 1305.6663.
    """

    class Config(BaseConfig):
        hidden: int = Field(ge=1)
        """Units of every hidden layer."""
        num_layers: int = Field(ge=1)
        """Number of hidden layers."""
        activation: Literal["tanh", "relu"]
        """Non-linearity of the hidden layers."""
        noise: float = Field(gt=0, le=1)
        """Probability with which a bit is replaced by a fair coin."""
        walkback_steps: int = Field(ge=1)
        """Steps of the chain from each training point, every one denoised to that point; 1 is plain denoising."""
        num_steps: int = Field(ge=1)
        """Gradient steps."""
        batch_size: int = Field(ge=1)
        """Training points a step."""
        learning_rate: float = Field(gt=0)
        """Initial learning rate of Adam; it falls to 0 along half a cosine."""
        validate_every: int = Field(ge=1)
        """Steps between looks at the validation loss."""
        sample_steps: int = Field(ge=1)
        """Steps of the chain from an independent start to each sample."""

    def __init__(self, config: Any, space: BinaryVector) -> None:
        super().__init__(config, space)
        self.network = Denoiser(space.dim, config.hidden, config.num_layers, config.activation)
        self.best = Best(self.network)
        self.start_logits: Tensor
        self.register_buffer("start_logits", torch.zeros(space.dim))  # of the bits from which chains start

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = torch.optim.Adam(self.network.parameters(), c.learning_rate, fused=True)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(self.walkback_loss(x, step.rng))
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        return [
            Gradient("start", 1, 1000, {}, self._start),
            Gradient("fit", c.num_steps, c.batch_size, {"main": adam}, training_step, schedule=cosine),
        ]

    @torch.no_grad()
    def _start(self, batch: Tensor, step: Step) -> None:
        self.start_logits.copy_(bits.log_odds(batch))
        self.network.decoder.bias.copy_(self.start_logits)

    def walkback_loss(self, x: Tensor, rng: Generator) -> Tensor:
        """-log P(x | x~) over the corrupted states of chains from x (B, D), averaged over steps and batch: nats."""
        loss, state = x.new_zeros(()), x
        for k in range(self.config.walkback_steps):
            logits = self.network(corrupt(state, self.config.noise, rng))
            loss = loss - bits.log_prob(logits, x).mean()
            if k + 1 < self.config.walkback_steps:
                state = bits.draw(logits.detach(), rng)
        return loss / self.config.walkback_steps

    @torch.no_grad()
    def _validate(self, x: Tensor) -> None:
        # the same noise at every look, so that looks differ by the weights alone
        corrupted = corrupt(x, self.config.noise, stream("latent/validation"))
        self.best.offer(self.network, -bits.log_prob(self.network(corrupted), x).double().mean())

    @torch.no_grad()
    def step_chain(self, x: Tensor, rng: Generator) -> Tensor:
        """x (B, D) after one step of the chain: corrupted, and drawn from what the denoiser makes of that."""
        return bits.draw(self.best.network(corrupt(x, self.config.noise, rng)), rng)

    @torch.no_grad()
    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """`num` states (num, D) of chains after `sample_steps` steps from independent bits with the data's means.

        The draws are independent; their law is the chain's stationary one only in the limit of many steps.
        """
        ends = []
        for size in bits.block_sizes(num):
            x = bits.draw(self.start_logits.expand(size, -1), rng)
            for _ in range(self.config.sample_steps):
                x = self.step_chain(x, rng)
            ends.append(x)
        return torch.cat(ends)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The last hidden layer (B, H) of the network at bits x (B, D), not corrupted."""
        return bits.in_blocks(self.best.network.encoder, x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """P(x_i = 1 | x~ = x) (B, D) of bits x (B, D)."""
        return bits.in_blocks(lambda rows: self.best.network(rows).sigmoid(), x)
