"""The grammars of the variants: nested brackets of several kinds around clauses, each word of a kind by its rank.

S -> o_i B C_i E        C_i -> c_i
B -> n_j V | o_i B C_i V    (nesting)
V -> v_j | and B | very V
E -> "." | but B E
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .grammar import Grammar, Rule
from .language import Language

NUM_OPENERS, NUM_NOUNS, NUM_VERBS = 8, 12, 12
END = "END"


class Weights(NamedTuple):
    """What fixes the probabilities of the rules."""

    nesting: float
    """p(B -> o_i B C_i V), over all i."""
    and_: float
    """p(V -> and B)."""
    very: float
    """p(V -> very V)."""
    but: float
    """p(E -> but B E)."""
    zipf: float = 1.0
    """Openers, nouns and verbs of rank r have the weight r^-zipf."""


def skeleton() -> Grammar:
    """The rules, which all variants but `endings` share: 13 symbols (END among them), 44 words."""
    openers, nouns, verbs = (range(1, num + 1) for num in (NUM_OPENERS, NUM_NOUNS, NUM_VERBS))
    rules = [Rule("S", f"o{i}", ("B", f"C{i}", "E")) for i in openers]
    rules += [Rule(f"C{i}", f"c{i}") for i in openers]
    rules += [Rule("B", f"n{j}", ("V",)) for j in nouns]
    rules += [Rule("B", f"o{i}", ("B", f"C{i}", "V")) for i in openers]
    rules += [Rule("V", f"v{j}") for j in verbs]
    rules += [Rule("V", "and", ("B",)), Rule("V", "very", ("V",))]
    rules += [Rule("E", "."), Rule("E", "but", ("B", "E"))]
    return Grammar([*rules, Rule(END, "")], ("S", END))


def probabilities(grammar: Grammar, weights: Weights) -> Tensor:
    """θ (R,) float64 of the skeleton's rules."""
    w = weights
    share = {
        ("B", "n"): 1 - w.nesting, ("B", "o"): w.nesting,
        ("V", "v"): 1 - w.and_ - w.very, ("V", "and"): w.and_, ("V", "very"): w.very,
        ("E", "."): 1 - w.but, ("E", "but"): w.but,
    }  # fmt: skip
    ranked = {"o": NUM_OPENERS, "n": NUM_NOUNS, "v": NUM_VERBS}
    theta = []
    for rule in grammar.rules:
        kind, digits = rule.word.rstrip("0123456789"), rule.word.lstrip("abcdefghijklmnopqrstuvwxyz.")
        p = share.get((rule.head, kind), 1.0)
        if kind in ranked:
            p *= int(digits) ** -w.zipf / sum(rank**-w.zipf for rank in range(1, ranked[kind] + 1))
        theta.append(p)
    return torch.tensor(theta, dtype=torch.float64)


# The classes of `classes` differ in how steeply ranks fall and in how much they nest.
WEIGHTS: dict[str, tuple[Weights, ...]] = {
    "small": (Weights(nesting=0.3, and_=0.25, very=0.15, but=0.15),),
    "endings": (Weights(nesting=0.3, and_=0.25, very=0.15, but=0.15),),
    "deep": (Weights(nesting=0.75, and_=0.02, very=0.05, but=0.02),),
    "classes": tuple(
        Weights(nesting=nesting, and_=0.25, very=0.15, but=0.15, zipf=zipf)
        for zipf, nesting in ((1.0, 0.3), (0.3, 0.3), (1.0, 0.15), (-0.6, 0.3))
    ),
}


def language(name: str, max_length: int) -> Language:
    """The language of a variant."""
    grammar = skeleton()
    theta = torch.stack([probabilities(grammar, weights) for weights in WEIGHTS[name]])
    if name == "endings":
        grammar, theta = without_full_stops(grammar, theta)
    return Language(grammar, theta, max_length)


def without_full_stops(grammar: Grammar, theta: Tensor) -> tuple[Grammar, Tensor]:
    """The same rules with E -> end | but B E, and their θ (C, R): no word says that a sentence is over."""
    rules = [Rule(one.head, "" if one.word == "." else one.word, one.body) for one in grammar.rules if one.head != END]
    kept = torch.tensor([one.head != END for one in grammar.rules])
    return Grammar(rules, ("S",)), theta[:, kept]


def closers(grammar: Grammar) -> list[str]:
    """The symbols that expand to a closer and nothing else: C1 …"""
    return [name for name in grammar.symbols if name.startswith("C")]
