"""log p of many sequences under a causal transformers model: sorted by length, in batches of about as many tokens.

Sequences lie one behind the other in one tensor, and a row of a batch is a window on it, so nothing is done row by row.
What a row holds behind its end are tokens of others: a causal model sees no later token, so they need no mask.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .readout import Readout, target_log_prob

MAX_CACHED = 16  # keys and values of a prefix, as many times the tokens of a batch


@dataclass(frozen=True)
class Spans:
    """Windows on sequences that lie one behind the other.

    Arguments:
        ids: All tokens, (L,), int64.
        begins: Where each window begins, (M,).
        lengths: Tokens of each window, at least two, (M,).
        num_scored: How many of its last ones are scored, 1 … length - 1, (M,).
        sequence: Which sequence each window is of, (M,).
    """

    ids: Tensor
    begins: Tensor
    lengths: Tensor
    num_scored: Tensor
    sequence: Tensor


def windows(sequences: Sequence[Sequence[int]], size: int, stride: int) -> Spans:
    """Every token but the first of each sequence once, given those before it in its window.

    The network reads at most `size` tokens of a window. The first one scores all of its tokens; every other advances by
    `stride`, scores the tokens that are new, at most that many, and has at least size - stride + 1 tokens before each
    of them. The last ends where the sequence does.

    Arguments:
        sequences: Token ids, each of at least two, the first one a start that is not scored.
        size: Tokens that the network reads at once.
        stride: 1 … size; with stride = size a token after the first window's may have only one before it.
    """
    ids, begins, lengths = _joined(sequences)
    num = lengths - 1  # tokens to score, (N,)
    more = (num - size).clamp(min=0)
    num_windows = 1 + (more + stride - 1) // stride
    of = torch.arange(len(num)).repeat_interleave(num_windows)
    number = torch.arange(len(of)) - (num_windows.cumsum(0) - num_windows)[of]  # of a window in its sequence
    end = torch.minimum(size + number * stride, num[of])  # tokens scored by then
    before = torch.where(number > 0, size + (number - 1) * stride, 0)
    first = (end - size).clamp(min=0)
    return Spans(ids, begins[of] + first, end - first + 1, end - before, of)


def score(parts: Readout, spans: Spans, *, tokens_per_batch: int) -> Tensor:
    """log p of the scored tokens of each window given those before them, their sum in nats, (M,), float64, on the CPU.

    Arguments:
        tokens_per_batch: About how many tokens the network reads at once; a longer window is a batch by itself.
    """
    return _score(parts, spans, tokens_per_batch, prefix=None)


def score_answers(
    parts: Readout, sequences: Sequence[Sequence[int]], num_scored: Sequence[int], *, tokens_per_batch: int
) -> Tensor:
    """log p of the last `num_scored` tokens of each sequence given those before, nats, (N,), float64, on the CPU.

    What all sequences have in common in front (the examples of a few-shot prompt) is read once: its keys and values
    serve every batch. Models that keep no such cache read it again.

    Arguments:
        sequences: Contexts with their answers, as token ids; every context has at least one.
        num_scored: Tokens of each answer, at least one.
        tokens_per_batch: As for `score`.
    """
    ids, begins, lengths = _joined(sequences)
    scored = torch.as_tensor(num_scored)
    # the token before the first that is scored must be read with its row, since its state predicts
    shared = min(common_prefix(sequences), int((lengths - scored).min()) - 1) if len(lengths) else 0
    prefix = _read(parts, ids[:shared]) if shared > 0 and len(lengths) > 1 else None
    skipped = shared if prefix is not None else 0
    spans = Spans(ids, begins + skipped, lengths - skipped, scored, torch.arange(len(lengths)))
    return _score(parts, spans, tokens_per_batch, prefix)


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with: as many as the first and last of them in order have in common."""
    first, last = min(sequences, default=()), max(sequences, default=())
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


@torch.inference_mode()
def _score(parts: Readout, spans: Spans, tokens_per_batch: int, prefix: Any) -> Tensor:
    found = torch.zeros(len(spans.begins), dtype=torch.float64)
    num_cached = 0 if prefix is None else prefix.get_seq_length()
    order = spans.lengths.argsort(descending=True, stable=True)
    begin = 0
    while begin < len(order):
        width = int(spans.lengths[order[begin]]) - 1  # tokens that the longest window's row reads
        num_rows = max(1, tokens_per_batch // width)
        if num_cached:
            num_rows = max(1, min(num_rows, MAX_CACHED * tokens_per_batch // num_cached))
        rows = order[begin : begin + num_rows]
        begin += num_rows
        places = spans.begins[rows, None] + torch.arange(width + 1)
        x = spans.ids[places.clamp(max=len(spans.ids) - 1)]  # (B, width + 1)
        last = spans.lengths[rows, None] - 1
        inside = torch.arange(width)
        scored = (inside < last) & (inside >= last - spans.num_scored[rows, None])  # (B, width)
        more = {} if prefix is None else {"past_key_values": _repeated(prefix, len(rows)), "use_cache": True}
        states, _ = parts(x[:, :-1].to(parts.device), **more)
        targets = x[:, 1:][scored].to(parts.device)
        log_p = target_log_prob(parts, states[scored.to(parts.device)], targets).cpu()
        found.index_add_(0, rows[scored.nonzero()[:, 0]], log_p)
    return found


@torch.inference_mode()
def _read(parts: Readout, ids: Tensor) -> Any:
    """The cache of keys and values of a prefix (P,); None where the network keeps none that rows can share."""
    _, cache = parts(ids[None].to(parts.device), use_cache=True)
    layers = getattr(cache, "layers", ())
    plain = layers and all(type(layer).__name__ == "DynamicLayer" for layer in layers)
    return cache if plain and cache.get_seq_length() == len(ids) else None


def _repeated(cache: Any, num: int) -> Any:
    """A cache of one row as one of `num`, of its own. Reading on copies the rows, which until then share memory."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in own.layers:
        layer.keys, layer.values = (one.expand(num, *one.shape[1:]) for one in (layer.keys, layer.values))
    return own


def _joined(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences one behind the other (L,), where each begins, and their lengths, (N,) both."""
    lengths = torch.tensor([len(one) for one in sequences], dtype=torch.int64)
    ids = torch.tensor(list(itertools.chain.from_iterable(sequences)), dtype=torch.int64)
    return ids, lengths.cumsum(0) - lengths, lengths
