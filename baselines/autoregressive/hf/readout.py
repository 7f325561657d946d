"""A causal network in two parts, the states of tokens and the projection to the vocabulary, and log p of tokens.

A table of logits of every position and word is far larger than all else that scoring computes. Projecting blocks of
rows, and turning each into its normaliser in place, keeps what is worked on in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gmbench.errors import UserError

ROWS = 128  # of logits at a time: 4 MB of float32 for 8192 words
SAME = 1e-5  # logits, as a share of the greatest: what rounding may change, in float32


@dataclass(frozen=True)
class Readout:
    """A causal transformers model in two parts.

    Arguments:
        states: `states(ids, **more)` gives the output of the network's body on ids (B, T).
        name: Which of the output's tensors are the states (B, T, D).
        head: Logits (R, V) from states (R, D), in memory that may be written over.
        device: Where ids belong.
    """

    states: Callable[..., Any]
    name: str
    head: Callable[[Tensor], Tensor]
    device: torch.device

    def __call__(self, ids: Tensor, **more: Any) -> tuple[Tensor, Any]:
        """States (B, T, D) of ids (B, T), and the cache of keys and values if `use_cache` asks for it."""
        output = self.states(input_ids=ids, **({"use_cache": False} | more))
        return getattr(output, self.name), getattr(output, "past_key_values", None)


def readout(network: Any) -> Readout:
    """The two parts of a causal transformers model in evaluation mode.

    Some models do more to logits than their last layer says (cap or scale them). So the parts are tried: where they do
    not give the network's own logits bit by bit, its whole table of logits is the states, which is slower but right.

    Raises:
        UserError: Logits change with a token behind them. Checkpoints of causal classes may be so, by their config
            (`is_decoder`, `causal`): they read what they are asked to predict. Or logits are NaN.
    """
    head, body = network.get_output_embeddings(), network.base_model
    device = next(network.parameters()).device
    # two rows that differ in their last token
    ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=device) % network.config.get_text_config().vocab_size
    with torch.inference_mode():
        logits = network(input_ids=ids, use_cache=False).logits
        if bool(logits.isnan().any()):
            raise UserError("the checkpoint's network gives NaN for its first tokens: its weights are damaged")
        before = logits[:, :-1]
        if not torch.allclose(*before, rtol=0, atol=SAME * float(before.abs().max())):
            raise UserError(
                f"the checkpoint's {type(network).__name__} reads later tokens: it is no causal model, and has no "
                "log p of a text; a masked model is measured if it was saved as one (…ForMaskedLM)"
            )
        if isinstance(head, nn.Linear) and body is not network:
            states = getattr(body(input_ids=ids, use_cache=False), "last_hidden_state", None)
            fits = states is not None and states.shape[-1] == head.in_features
            if fits and torch.equal(head(states), logits):
                return Readout(body, "last_hidden_state", head, device)
    return Readout(network, "logits", lambda rows: rows, device)


def target_log_prob(parts: Readout, states: Tensor, targets: Tensor) -> Tensor:
    """log p of the token `targets` (R,) behind each of R positions from their states (R, D): nats, (R,), float64."""
    found = torch.empty(len(targets), dtype=torch.float64, device=states.device)
    for begin in range(0, len(targets), ROWS):
        rows = slice(begin, begin + ROWS)
        logits = parts.head(states[rows]).float()  # (ROWS, V)
        logits -= logits.amax(1, keepdim=True)
        of_target = logits.gather(1, targets[rows, None])[:, 0].double()
        found[rows] = of_target - logits.exp_().sum(1).log()
    return found
