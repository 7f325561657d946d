"""The checks of models of token sequences: their probabilities are those of a next token given what came before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gmbench.conformance.checks import Skipped, require
from gmbench.randomness import stream
from gmbench.spaces import TokenPair, TokenSequence

TOLERANCE = 1e-4  # nats; batches of other shapes add float32 numbers in another order
MAX_VOCABULARY = 5000
NUM_SAMPLES = 2000


def sequences_come_back(m: Any) -> None:
    """What reconstruct and decode give, where points are sequences."""
    space = _space(m)
    m.data.space.validate(m.ask("reconstruct")(m.points), "reconstructions")
    if hasattr(m.fitted, "decode"):
        space.validate(m.fitted.decode(m.fitted.prior().mean.expand(5, -1)), "decoded sequences")


def token_log_probs_make_up_log_prob(m: Any) -> None:
    space = _space(m)
    each, target = _asked(m, "token_log_prob")(m.points), _targets(m, m.points)
    require(each.shape == target.shape, f"token_log_prob gave {tuple(each.shape)} for {tuple(target.shape)} positions")
    require(not bool(each[target == space.PAD].any()), "token_log_prob is not 0 where a sequence is padded")
    require(bool((each <= TOLERANCE).all()), "token_log_prob is above 0: no probability is above 1")
    total = _asked(m, "log_prob")(m.points, rng=stream("check"))
    gap = float((each.double().sum(1) - total.double()).abs().max())
    require(gap < TOLERANCE * target.shape[1], f"token_log_prob sums to log_prob less {gap:.3g} nats")


def token_log_prob_looks_back_only(m: Any) -> None:
    space, x = _space(m), m.points
    ask = _asked(m, "token_log_prob")
    before, begin = ask(x), x.shape[1] - space.max_length
    cut = max(1, int((_targets(m, x) != space.PAD).sum(1).min()) // 2)
    other = x.clone()
    if space.ends:
        other[:, begin + cut] = space.EOS
        other[:, begin + cut + 1 :] = space.PAD
    else:
        other[:, cut:] = x[:, cut:].roll(1, 0)
    gap = float((ask(other) - before)[:, :cut].abs().max())
    require(gap < TOLERANCE, f"other tokens from position {cut} on change what came before them by {gap:.3g} nats")


def next_tokens_sum_to_one(m: Any) -> None:
    space = _space(m)
    for position in (0, min(3, space.max_length - 2)):
        total = float(_next(m, position).exp().sum())
        require(abs(total - 1) < 1e-3, f"the probabilities of all tokens at position {position} sum to {total:.5f}")


def pseudo_log_probs_leave_room_for_other_words(m: Any) -> None:
    """Over all words at one place Σ p(word | others) Π p(another | the word and others) is at most 1, or tokens see
    themselves."""
    space, ask = _space(m), _asked(m, "pseudo_log_prob")
    if isinstance(m.data.space, TokenPair):
        raise Skipped("points are pairs")
    num_words = (m.points > space.EOS).sum(1)
    if not space.ends or space.vocab_size > MAX_VOCABULARY or int(num_words.max()) == 0:
        raise Skipped("windows of a stream, a large vocabulary, or no words")
    shortest = int(torch.where(num_words > 0, num_words, space.max_length + 1).argmin())
    x = m.points[shortest : shortest + 1].repeat(space.vocab_size - 2, 1)
    x[:, 0] = torch.arange(2, space.vocab_size)
    nats = ask(x)
    require(tuple(nats.shape) == (len(x),), f"pseudo_log_prob gave {tuple(nats.shape)} for {len(x)} sequences")
    total = float(nats.double().exp().sum())
    require(total < 1 + 1e-3, f"pseudo_log_prob with every word at one place: the probabilities sum to {total:.3f}")


def first_tokens_are_sampled_as_scored(m: Any) -> None:
    space = _space(m)
    if isinstance(m.data.space, TokenPair):
        source = m.data.space.split(m.points[:1])[0].expand(NUM_SAMPLES, -1)
        drawn = m.ask("sample")(NUM_SAMPLES, given=source, rng=stream("check/first"))
    else:
        drawn = m.ask("sample")(NUM_SAMPLES, rng=stream("check/first"))
    space.validate(drawn, "samples")
    expected = _next(m, 0).double().exp() * NUM_SAMPLES
    counts = drawn[:, 0].bincount(minlength=space.vocab_size).double()
    common = expected > 5
    degrees = max(int(common.sum()) - 1, 1)
    chi_square = float(((counts - expected).square() / expected)[common].sum())
    rare, drawn_rarely = float(expected[~common].sum()), float(counts[~common].sum())
    if rare > 5:
        chi_square += (drawn_rarely - rare) ** 2 / rare
    bound = degrees + 7 * (2 * degrees) ** 0.5
    require(chi_square < bound, f"first tokens do not follow token_log_prob: chi-square {chi_square:.0f} of {degrees}")
    require(drawn_rarely < rare + 7 * (rare + 1) ** 0.5, f"{drawn_rarely:.0f} rare first tokens, {rare:.1f} expected")


def _space(m: Any) -> TokenSequence:
    """The space of the sequences that are modelled: of pairs, the targets'."""
    space = m.data.space.target if isinstance(m.data.space, TokenPair) else m.data.space
    if not isinstance(space, TokenSequence):
        raise Skipped("points are no token sequences")
    return space


def _asked(m: Any, name: str) -> Callable[..., Any]:
    """The method of a capability, without gradients, as it is measured."""
    method: Callable[..., Any] = torch.no_grad()(m.ask(name))
    return method


def _targets(m: Any, x: Tensor) -> Tensor:
    return m.data.space.split(x)[1] if isinstance(m.data.space, TokenPair) else x


def _next(m: Any, position: int) -> Tensor:
    """log p of every token (V,) after the first `position` tokens of the longest point, -inf for padding."""
    space = _space(m)
    if space.vocab_size > MAX_VOCABULARY:
        raise Skipped(f"a vocabulary of {space.vocab_size}")
    ask, begin = _asked(m, "token_log_prob"), m.points.shape[1] - space.max_length
    # of pairs the first one, whose source the samples are drawn for
    longest = 0 if begin else int((m.points != space.PAD).sum(1).argmax())
    x = m.points[longest : longest + 1].repeat(space.vocab_size, 1)
    if int((x[0, begin:] != space.PAD).sum()) <= position:
        raise Skipped("the points are too short")
    tokens = torch.arange(space.vocab_size)
    x[:, begin + position] = tokens
    if space.ends:
        x[:, begin + position + 1 :] = space.PAD
        unended = tokens != space.EOS
        x[unended, begin + position + 1] = space.EOS
    keep = tokens != space.PAD
    log_p = torch.full((space.vocab_size,), -torch.inf)
    log_p[keep] = ask(x[keep])[:, position].float()
    return log_p
