"""The true language: one grammar, or several on the same rules of which a class chooses one; everything of it exact."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Generator, Tensor

from gmbench.errors import UserError
from gmbench.spaces import TokenSequence

from .grammar import NO_RULE, Grammar
from .moments import Lengths, Moments, lengths, moments

_BLOCK = 2048  # sentences of which the probabilities of all classes are held at once


class Language:
    """p(x) = (1 / C) Σ_c p_c(x), sentences x_1 … x_n EOS drawn up to a length.

    Longer sentences are drawn again, and log p is that of the grammar without a limit: the truth of what is drawn lies
    -log(1 - `lost`) nats a sentence above it, which max_length makes negligible.

    Arguments:
        grammar: The rules.
        theta: Their probabilities in each class, (C, R); C = 1 is a language without classes.
        max_length: Positions of a row, the end among them.
    """

    def __init__(self, grammar: Grammar, theta: Tensor, max_length: int) -> None:
        self.grammar, self.theta, self.max_length = grammar, theta.double(), max_length
        self.num_classes = len(theta)
        self.space = TokenSequence(grammar.vocab_size, max_length, words=("<pad>", "</s>", *grammar.words))

    def sample(self, num: int, *, given: Tensor | None = None, rng: Generator) -> Tensor:
        """`num` independent sentences (num, max_length), of the classes `given`, (num,) int64, or of random ones."""
        if given is not None and self.num_classes == 1:
            raise UserError("this language has no classes that could be given")
        classes = self.draw_classes(num, rng=rng) if given is None else given.cpu()
        if tuple(classes.shape) != (num,) or not bool(((classes >= 0) & (classes < self.num_classes)).all()):
            raise UserError(f"classes must be {num} whole numbers from 0 to {self.num_classes - 1}")
        return self.grammar.draw(self.theta, classes, self.max_length, rng=rng).to(rng.device)

    def draw_classes(self, num: int, *, rng: Generator) -> Tensor:
        """Classes of `num` sentences, (num,) int64, each with the probability 1 / C."""
        return torch.randint(self.num_classes, (num,), generator=rng, device=rng.device).cpu()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of rows x (N, T), the end included, (N,) float64 nats; -inf of what is no sentence."""
        return torch.logsumexp(self.log_joint(x), 1)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, c) of every class, (N, C) float64."""
        blocks = [self._joint(block.cpu()) for block in x.split(_BLOCK)]
        return torch.cat(blocks) - math.log(self.num_classes)

    def _joint(self, x: Tensor) -> Tensor:
        """log p(x | c), (N, C); -inf of what begins as a sentence and is none."""
        joint = self._joint_by_token(x).sum(1)
        return joint.masked_fill_(~self.grammar.parse(x).complete[:, None], -math.inf)

    def class_probabilities(self, x: Tensor) -> Tensor:
        """p(c | x) of every class, (N, C) float64; zeros of what is no sentence."""
        joint = self.log_joint(x)
        return (joint - torch.logsumexp(joint, 1, keepdim=True)).exp().nan_to_num(0.0)

    def token_log_prob(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t) of rows x (N, T), (N, T) float64; 0 at padding, -inf from where no sentence begins so."""
        return torch.cat([self._token_log_prob(block) for block in x.split(_BLOCK)])

    def _token_log_prob(self, x: Tensor) -> Tensor:
        by_class = self._joint_by_token(x)
        if self.num_classes == 1:
            return by_class[..., 0]
        ahead = torch.logsumexp(by_class.cumsum(1), 2)
        behind = torch.cat([ahead.new_full((len(x), 1), math.log(self.num_classes)), ahead[:, :-1]], 1)
        # the differences of sums are rounded: 0 at padding is meant to be 0
        return torch.where(ahead.isinf(), ahead, ahead - behind).masked_fill_(x.cpu() == TokenSequence.PAD, 0.0)

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Σ_t log p(x_t | all other tokens) of sentences x (N, T), (N,) float64, from every other word at every place.

        The end follows from the other tokens and costs nothing.
        """
        return torch.cat([self._pseudo_log_prob(block) for block in x.cpu().split(64)])

    def _pseudo_log_prob(self, x: Tensor) -> Tensor:
        own, rules = self.log_prob(x), self.grammar.parse(x).rules
        row, place = ((rules != NO_RULE) & (x != TokenSequence.EOS) & own.isfinite()[:, None]).nonzero(as_tuple=True)
        # what fits at a place is a word of the symbol that is expanded there, whatever follows
        fits = self.grammar.table[self.grammar.heads[rules[row, place]]] != NO_RULE  # (M, V)
        which, token = fits.nonzero(as_tuple=True)
        other = x[row[which]]
        other[torch.arange(len(which)), place[which]] = token
        weight = (self.log_prob(other) - own[row[which]]).exp()
        total = own.new_zeros(len(row)).index_add_(0, which, weight)
        found = own.new_zeros(len(x)).index_add_(0, row, -total.log())
        return found.masked_fill_(own.isinf(), -math.inf)

    def _joint_by_token(self, x: Tensor) -> Tensor:
        """log p(x_t | x_<t, c), (N, T, C); 0 at padding and -inf where no rule fits, in every class."""
        x = x.cpu()
        rules = self.grammar.parse(x).rules
        found: Tensor = self.theta.log().T[rules.clamp(min=0)]
        found[(rules == NO_RULE) & (x != TokenSequence.PAD)] = -math.inf
        found[x == TokenSequence.PAD] = 0.0
        return found

    @cached_property
    def moments(self) -> list[Moments]:
        """The closed forms of each class, of sentences without limit."""
        return [moments(self.grammar, theta) for theta in self.theta]

    @cached_property
    def lost(self) -> float:
        """The largest mass of a class's sentences that are too long, exact."""
        return max(1 - float(one.mass.sum()) for one in self._lengths)

    @cached_property
    def entropy_given_class(self) -> float:
        """H(X | C) in nats a sentence, of the sentences that are not too long, exact; H(X) where C = 1."""
        found = 0.0
        for one in self._lengths:
            kept = float(one.mass.sum())
            found += (float(one.nats.sum()) / kept + math.log(kept)) / self.num_classes
        return found

    @cached_property
    def mean_length(self) -> float:
        """Words a sentence, without the end, of the sentences that are not too long, exact."""
        found = 0.0
        for one in self._lengths:
            words = torch.arange(len(one.mass), dtype=one.mass.dtype)
            found += float(one.mass @ words) / float(one.mass.sum()) / self.num_classes
        return found

    @cached_property
    def _lengths(self) -> list[Lengths]:
        return [lengths(self.grammar, theta, self.max_length - 1) for theta in self.theta]

    def information(self, num: int, *, rng: Generator) -> Tensor:
        """log p(c | x) / p(c) of `num` draws of (x, c), (num,) float64, whose mean estimates I(X; C)."""
        classes = self.draw_classes(num, rng=rng)
        p = self.class_probabilities(self.sample(num, given=classes, rng=rng))
        # the mean over classes by p(c | x) is the same expectation with less noise
        return math.log(self.num_classes) + torch.xlogy(p, p).sum(1)
