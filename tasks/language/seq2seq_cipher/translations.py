"""How good translations are as text: BLEU of a corpus, and the share that is right in every word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

from gmbench.estimate import Estimate

NUM_GROUPS = 20


def bleu(translations: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Estimate:
    """BLEU-4 of a corpus, one reference a sentence, by nltk, in [0, 1].

    The standard error is the jackknife's over 20 groups of sentences, in the order that they have. n-gram precisions of
    0 are smoothed as nltk's method 1 does (.1 matches), so that a bad corpus has a number above 0.

    Source: K. Papineni, S. Roukos, T. Ward, W.-J. Zhu, "BLEU: a Method for Automatic Evaluation of Machine
    Translation", 2002.
    """
    value = _corpus(translations, references)
    num = len(translations)
    if num < 2 * NUM_GROUPS:
        note = f"fewer than {2 * NUM_GROUPS} sentences: no standard error"
        return Estimate(value=value, n=num, kind="consistent", note=note)
    left_out = torch.tensor([
        _corpus(*(
            [one for number, one in enumerate(side) if number % NUM_GROUPS != group]
            for side in (translations, references)
        ))
        for group in range(NUM_GROUPS)
    ], dtype=torch.float64)  # fmt: skip
    stderr = math.sqrt(NUM_GROUPS - 1) * float(left_out.std(correction=0))
    return Estimate(value=value, stderr=stderr, n=num, kind="consistent")


def exact_match(translations: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Estimate:
    """The share of sentences that equal their reference."""
    same = torch.tensor([a == b for a, b in zip(translations, references, strict=True)]).double()
    return Estimate(value=float(same.mean()), stderr=float(same.std()) / math.sqrt(len(same)), n=len(same))


def _corpus(translations: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    smooth = SmoothingFunction().method1
    return float(corpus_bleu([[one] for one in references], translations, smoothing_function=smooth))
