"""Lines as rows of a fixed width, each by itself, or as windows of the stream that they make together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gmbench.errors import UserError
from gmbench.spaces import TokenSequence

from .corpus import Lines

BLOCK = 64  # windows in one pass


def rows(lines: Lines, max_words: int) -> tuple[Tensor, Tensor]:
    """Every line as a row: its words, EOS, padding. One with more words becomes several; a blank one becomes none.

    Nothing else is left out: a line of n words becomes ceil(n / max_words) rows, of max_words words each but the last.

    Returns:
        Rows (M, max_words + 1), int64, and the number of the line that each is of, (M,).
    """
    num_rows = (lines.lengths + max_words - 1) // max_words  # of each line
    line_of = torch.arange(len(num_rows)).repeat_interleave(num_rows)
    first = num_rows.cumsum(0) - num_rows  # each line's first row
    starts = (lines.lengths + 1).cumsum(0) - lines.lengths - 1  # each line's first place in the ids
    line = torch.arange(len(num_rows)).repeat_interleave(lines.lengths)  # of each word
    place = torch.arange(len(line)) - (starts - torch.arange(len(starts)))[line]  # of each word in its line
    x = torch.full((len(line_of), max_words + 1), TokenSequence.PAD)
    x[first[line] + place // max_words, place % max_words] = lines.ids[starts[line] + place]
    x[torch.arange(len(x)), (x != TokenSequence.PAD).sum(1)] = TokenSequence.EOS
    return x, line_of


def written(ids: Tensor, words: Sequence[str]) -> str:
    """Tokens (L,) as text: blanks between words, a new line for each EOS but one at the end, the end of the text."""
    lines: list[list[str]] = [[]]
    for token in ids.tolist():
        if token == TokenSequence.EOS:
            lines.append([])
        elif token != TokenSequence.PAD:
            lines[-1].append(words[token])
    if not lines[-1]:
        lines.pop()
    return "\n".join(map(" ".join, lines))


def windows(ids: Tensor, size: int) -> Tensor:
    """A stream (L,) in windows that follow each other, (L // size, size); what is left at its end is in none."""
    if len(ids) < size:
        raise UserError(f"a text of {len(ids)} tokens, its ends of lines counted, has no window of {size}")
    return ids.unfold(0, size, size)


def scoring_windows(num: int, size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Where windows begin that advance by `stride` over `num` positions, and how many of each are not new, (W,) both.

    The positions of the first window are all new. In every other one new positions have at least size - stride before
    them; the last window ends where the stream does, and so advances by less.

    Raises:
        UserError: There are fewer positions than a window has.
    """
    if num < size:
        raise UserError(f"a text of {num} tokens, its ends of lines counted, has no window of {size}")
    begins = torch.arange(0, num - size + stride, stride).clamp(max=num - size)
    seen = torch.cat([begins.new_zeros(1), begins[:-1] + size - begins[1:]])
    return begins, seen


@torch.no_grad()
def stream_log_prob(
    token_log_prob: Callable[[Tensor], Tensor], ids: Tensor, size: int, stride: int, device: torch.device
) -> Tensor:
    """log p of every position of a stream (L,) given those before it in its window, float64 nats (L,), each once.

    Arguments:
        token_log_prob: Of windows (B, size), (B, size).
        size, stride: As for `scoring_windows`.
    """
    found = torch.full((len(ids),), torch.nan, dtype=torch.float64)
    begins, seen = scoring_windows(len(ids), size, stride)
    inside = torch.arange(size)
    for begin, known in zip(begins.split(BLOCK), seen.split(BLOCK), strict=True):
        places = begin[:, None] + inside  # (B, size)
        log_p = token_log_prob(ids[places].to(device)).double().cpu()
        new = inside >= known[:, None]
        found[places[new]] = log_p[new]
    return found
