"""Simple deterministic grammars: rules A -> a B1 … Bk whose first word is another one in every rule of A.

A sentence has one derivation, read from left to right with a stack: the symbol on top and the next word name the rule.
So p(x_t | x_<t) is the probability of that rule, and log p(x) takes time O(T), however deep a sentence nests.

Source: A. J. Korenjak, J. E. Hopcroft, "Simple deterministic languages", 1966 (s-grammars).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gmbench.spaces import TokenSequence

NO_RULE = -1
FIRST_WORD = 2  # ids 0 and 1 are PAD and EOS
_BLOCK = 8192  # rows whose stacks are held at once


class Rule(NamedTuple):
    """head -> word body; an empty word is the end of the sentence, after which nothing may be left on the stack."""

    head: str
    word: str
    body: tuple[str, ...] = ()


class Parse(NamedTuple):
    """What a stack makes of N rows of T tokens."""

    rules: Tensor
    """The rule that each token is the word of, (N, T) int64; NO_RULE at padding, and from where a row is no prefix."""
    origins: Tensor
    """The position of the token that put the rule's head on the stack, (N, T) int64; -1 for the start's symbols."""
    complete: Tensor
    """Whether the row is a sentence of the language, its end included, (N,) bool."""


class Grammar:
    """The rules of an s-grammar, without their probabilities.

    Arguments:
        rules: In any order, which is that of the last axis of all θ here; (head, word) occurs once.
        start: The symbols that are on the stack at first, the topmost first.

    Raises:
        ValueError: Two rules of a symbol begin with one word, or a symbol has no rule.
    """

    def __init__(self, rules: Sequence[Rule], start: Sequence[str]) -> None:
        self.rules, self.start = tuple(rules), tuple(start)
        self.symbols = tuple(dict.fromkeys(rule.head for rule in rules))
        self.words = tuple(dict.fromkeys(rule.word for rule in rules if rule.word))
        self.number = number = {name: index for index, name in enumerate(self.symbols)}
        if unknown := {name for rule in rules for name in rule.body}.union(start) - set(number):
            raise ValueError(f"no rule for the symbols {', '.join(sorted(unknown))}")
        token = {word: FIRST_WORD + index for index, word in enumerate(self.words)} | {"": TokenSequence.EOS}
        self.vocab_size = FIRST_WORD + len(self.words)
        self.heads = torch.tensor([number[rule.head] for rule in rules])  # (R,)
        self.tokens = torch.tensor([token[rule.word] for rule in rules])  # (R,)
        self.body_sizes = torch.tensor([len(rule.body) for rule in rules])  # (R,)
        self.width = int(self.body_sizes.max())
        self.bodies = torch.zeros(len(rules), self.width, dtype=torch.int16)  # (R, width), the last symbol first
        self.table = torch.full((len(number), self.vocab_size), NO_RULE)
        for index, rule in enumerate(rules):
            pushed = [number[name] for name in reversed(rule.body)]
            self.bodies[index, : len(pushed)] = torch.tensor(pushed, dtype=torch.int16)
            if int(self.table[self.heads[index], self.tokens[index]]) != NO_RULE:
                raise ValueError(f"two rules of {rule.head} begin with {rule.word!r}: the grammar is not deterministic")
            self.table[self.heads[index], self.tokens[index]] = index
        self._start = torch.tensor([number[name] for name in reversed(start)], dtype=torch.int16)

    def parse(self, x: Tensor) -> Parse:
        """The derivations of rows x (N, T), on the CPU, as far as they go."""
        return Parse(*(torch.cat(parts) for parts in zip(*map(self._parse, x.split(_BLOCK)), strict=True)))

    def _parse(self, x: Tensor) -> Parse:
        num, length = x.shape
        used = int((x != TokenSequence.PAD).any(0).sum())
        rules = torch.full((num, length), NO_RULE)
        origins = torch.full((num, length), -1)
        complete = torch.zeros(num, dtype=torch.bool)
        stack = _Stack(self, num, used)
        rows = torch.arange(num)
        for t in range(used):
            top, origin = stack.pop(rows)
            rule = self.table[top, x[rows, t]]
            goes_on = rule != NO_RULE
            rows, rule = rows[goes_on], rule[goes_on]
            rules[rows, t], origins[rows, t] = rule, origin[goes_on]
            stack.push(rows, rule, t)
            empty = stack.depth[rows] == 0
            complete[rows[empty]] = (x[rows[empty], t + 1 :] == TokenSequence.PAD).all(1)
            rows = rows[~empty]
            if len(rows) == 0:
                break
        return Parse(rules, origins, complete)

    def draw(self, theta: Tensor, classes: Tensor, max_length: int, *, rng: Generator) -> Tensor:
        """Independent sentences (N, max_length), EOS and padding included; longer ones are rejected and drawn again.

        Arguments:
            theta: The rules' probabilities, (C, R) float64.
            classes: Which of the C each sentence follows, (N,).
        """
        x = torch.zeros(len(classes), max_length, dtype=torch.long)
        pending = torch.arange(len(classes))
        order = torch.argsort(self.heads, stable=True)
        edges = _edges(theta[:, order], self.heads[order])
        while len(pending):
            parts = [self._draw(order, edges, classes[part], max_length, rng) for part in pending.split(_BLOCK)]
            drawn = torch.cat([part[0] for part in parts])
            short = torch.cat([part[1] for part in parts])
            x[pending[short]] = drawn[short]
            pending = pending[~short]
        return x

    def _draw(
        self, order: Tensor, edges: Tensor, classes: Tensor, max_length: int, rng: Generator
    ) -> tuple[Tensor, Tensor]:
        """One attempt at each sentence, and which attempts are short enough."""
        num = len(classes)
        x = torch.zeros(num, max_length, dtype=torch.long)
        short = torch.zeros(num, dtype=torch.bool)
        stack = _Stack(self, num, max_length)
        rows = torch.arange(num)
        for t in range(max_length):
            top, _ = stack.pop(rows)
            u = torch.rand(len(rows), generator=rng, dtype=torch.float64, device=rng.device).cpu()
            place = torch.searchsorted(edges, classes[rows] * len(self.symbols) + top + u, right=True)
            rule = order[place % len(order)]
            x[rows, t] = self.tokens[rule]
            stack.push(rows, rule, t)
            depth = stack.depth[rows]
            short[rows[depth == 0]] = True
            rows = rows[(depth > 0) & (depth < max_length - t)]  # every symbol on the stack takes a position yet
            if len(rows) == 0:
                break
        return x, short


class _Stack:
    """The stacks of many rows, with the position at which each symbol was put there."""

    def __init__(self, grammar: Grammar, num: int, length: int) -> None:
        size = len(grammar.start) + (grammar.width - 1) * length + 1
        self.grammar = grammar
        self.symbols = torch.zeros(num, size, dtype=torch.int16)
        self.origins = torch.full((num, size), -1, dtype=torch.int16)
        self.symbols[:, : len(grammar.start)] = grammar._start
        self.depth = torch.full((num,), len(grammar.start))

    def pop(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        top = self.depth[rows] - 1
        self.depth[rows] = top
        return self.symbols[rows, top].long(), self.origins[rows, top].long()

    def push(self, rows: Tensor, rule: Tensor, t: int) -> None:
        depth = self.depth[rows]
        for j in range(self.grammar.width):  # what lies above the new depth is never read
            self.symbols[rows, depth + j] = self.grammar.bodies[rule, j]
            self.origins[rows, depth + j] = t
        self.depth[rows] = depth + self.grammar.body_sizes[rule]


def _edges(theta: Tensor, heads: Tensor) -> Tensor:
    """Ends of the intervals of the rules, sorted by head: those of symbol A in class c fill c num_symbols + A + [0, 1).

    Arguments:
        theta: (C, R), and the rules' heads (R,), in the same order. Returned is (C R,).
    """
    num_symbols = int(heads.max()) + 1
    edges = torch.empty_like(theta)
    for symbol in range(num_symbols):
        own = (heads == symbol).nonzero()[:, 0]
        edges[:, own] = theta[:, own].cumsum(1)
        edges[:, own[-1]] = 1.0
    offsets = torch.arange(len(theta), dtype=theta.dtype)[:, None] * num_symbols + heads
    return (edges + offsets).flatten()
