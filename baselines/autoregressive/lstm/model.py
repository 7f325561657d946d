"""The LSTM language model: a recurrent autoregressive model of token sequences with exact likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.model import Data, Likelihood, Model
from gmbench.spaces import TokenSequence
from gmbench.training import Gradient, Stage, Step

from ...latent.best import Best
from ...precision import full_precision
from ...tokens import PAD, finished, require_no_condition, shifted
from ..fitting import FitConfig, adamw, one_cycle, sequences_per_step
from ..ragged import States, mean_states, placed, token_states
from ..vocabulary import by_quantiles, token_log_probs, total_nll
from .network import LSTMNetwork, State

VALIDATION_ROWS = 1000
ROWS = 2048  # sequences that are generated together
TOKENS = 16384  # tokens of one pass, padding included


class LSTM(Model):
    """p(x) = prod_t p(x_t | x_<t), what came before summed up in the state of an LSTM.

    Trained by maximum likelihood, nats averaged over the tokens of a batch; every `validate_every` steps the nats a
    token of validation sequences decide whether the present weights become the model (the last step is always a
    candidate). Every sequence, or window of a stream, begins with the state 0.

    Source: W. Zaremba, I. Sutskever, O. Vinyals, "Recurrent Neural Network Regularization", 2014, arXiv 1409.2329; the
    tied output: O. Press, L. Wolf, "Using the Output Embedding to Improve Language Models", 2016, arXiv 1608.05859.

    Raises:
        UserError: Embeddings are to be the output's weights and have another size.
    """

    class Config(FitConfig):
        embedding: int = Field(ge=1)
        """Features of a token's embedding."""
        hidden: int = Field(ge=1)
        """Units of a layer."""
        num_layers: int = Field(ge=1)
        """Layers."""
        tied: bool
        """Whether the output's weights are the embeddings; `embedding` must be `hidden` then."""
        dropout: float = Field(ge=0, lt=1)
        """Probability with which a feature is dropped from the embeddings and from what each layer gives."""

    likelihood = Likelihood()

    def __init__(self, config: Config, space: TokenSequence) -> None:
        super().__init__(config, space)
        c = config
        if c.tied and c.embedding != c.hidden:
            raise UserError(f"tied needs embedding = hidden, and they are {c.embedding} and {c.hidden}")
        self.network = LSTMNetwork(
            space.vocab_size,
            embedding=c.embedding,
            hidden=c.hidden,
            num_layers=c.num_layers,
            dropout=c.dropout,
            tied=c.tied,
        )
        self.best = Best(self.network)

    def stages(self, data: Data) -> Sequence[Stage]:
        c = self.config
        adam = adamw(self.network, c)
        held_out = data.validation[:VALIDATION_ROWS]

        def training_step(x: Tensor, step: Step) -> None:
            step.minimize(nats_per_token(self.network, x), clip=c.clip)
            if (step.index + 1) % c.validate_every == 0 or step.index + 1 == step.num_steps:
                self._validate(held_out.to(x.device))

        num, schedule = sequences_per_step(c, held_out), one_cycle(c.warm_up)
        return [Gradient("fit", c.num_steps, num, {"main": adam}, training_step, schedule=schedule)]

    @full_precision()
    def _validate(self, x: Tensor) -> None:
        self.network.eval()
        log_p = score(self.network, x)
        self.network.train()
        self.best.offer(self.network, -log_p.double().sum() / (x != PAD).sum())

    @torch.no_grad()
    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t) in nats of sequences x (B, T), exact, (B, T); 0 where x is padding."""
        self.best.eval()
        return score(self.best.network, x)

    def log_prob(self, x: Tensor, *, rng: Generator) -> Tensor:
        """log p(x) in nats of sequences x (B, T), exact, (B,)."""
        return self.token_log_prob(x).double().sum(1).float()

    @torch.no_grad()
    def sample(self, num: int, *, given: object = None, rng: Generator) -> Tensor:
        """`num` independent draws (num, T).

        Raises:
            MissingCapability: A condition is given.
        """
        require_no_condition(given)
        self.best.eval()
        sizes = [ROWS] * (num // ROWS) + [num % ROWS] * (num % ROWS > 0)
        x = torch.cat([self._generate(size, rng) for size in sizes])
        return finished(x) if self.space.ends else x

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of the last layer's features over the positions of sequences x (B, T), (B, H)."""
        self.best.eval()
        return mean_states(states_of(self.best.network), x, TOKENS)

    def _generate(self, num: int, rng: Generator) -> Tensor:
        """Tokens (num, T), padded behind their end; the state is carried on, and rows that have ended leave."""
        network, space = self.best.network, self.space
        choose = by_quantiles(num, rng)
        x = torch.full((num, space.max_length), PAD, device=self.device)
        rows = torch.arange(num, device=self.device)
        tokens, state = torch.full_like(rows, PAD), None
        for t in range(space.max_length):
            features, state = network.hidden(tokens[:, None], state)
            tokens = choose(t, network.logits(features[:, 0]), rows)
            x[rows, t] = tokens
            if space.ends:
                grows = (tokens != space.EOS).nonzero()[:, 0]
                if not len(grows):
                    break
                rows, tokens = rows[grows], tokens[grows]
                state = _kept(state, grows)
        return x


def nats_per_token(network: LSTMNetwork, x: Tensor) -> Tensor:
    """Minus log p of sequences x (B, T), averaged over tokens: a scalar in nats."""
    features, places = token_states(states_of(network), x, TOKENS)
    return total_nll(network.logits(features), x.flatten()[places]) / len(places)


@torch.no_grad()
def score(network: LSTMNetwork, x: Tensor) -> Tensor:
    """log p(x_t | x_<t) in nats of sequences x (B, T), (B, T)."""
    features, places = token_states(states_of(network), x, TOKENS)
    tokens = x.flatten()[places]
    return placed(token_log_probs(features, network.output, tokens, network.bias), places, x)


def states_of(network: LSTMNetwork) -> States:
    """The features from which tokens are predicted."""
    return lambda rows, part: network.hidden(shifted(part))[0]


def _kept(state: State, rows: Tensor) -> State:
    return state[0][:, rows], state[1][:, rows]
