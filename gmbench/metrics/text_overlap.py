"""Overlap of texts by n-grams: BLEU with references, self-BLEU of samples with each other, and distinct n-grams.

Sources: Papineni, Roukos, Ward, Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002; Zhu, Lu,
Zheng, Guo, Zhang, Wang, Yu, "Texygen: A Benchmarking Platform for Text Generation Models", 2018, arXiv 1802.01886
(self-BLEU); Li, Galley, Brockett, Gao, Dolan, "A Diversity-Promoting Objective Function for Neural Conversation
Models", 2016, arXiv 1510.03055 (distinct-n); Efron, Stein, "The Jackknife Estimate of Variance", 1981.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator

from gmbench.estimate import Estimate
from gmbench.metrics.checks import check_count

Tokens = Sequence[Hashable]
"""One text: words, or their ids."""


def bleu(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    *,
    order: int = 4,
    draw: Sequence[int] | None = None,
) -> Estimate:
    """Corpus BLEU of N texts, each with its own references, between 0 and 1, not smoothed.

    The counts are nltk's but for one: there a text of fewer than n words has one n-gram, which never matches, so that
    texts which all equal their reference may get less than 1. Here it has none.

    Its counts add up over texts, so the jackknife, which leaves out each draw in turn, costs little.

    Arguments:
        hypotheses: N texts, N at least 2.
        references: Of each text, one or more.
        order: n-grams of 1 … order words weigh alike.
        draw: Which texts belong together since they depend on each other, 0 … G - 1 of each, G at least 2; by default
            none do.

    Raises:
        ValueError: There are fewer than two texts, or not as many sets of references, or a text has none.
    """
    check_count("the number of texts", len(hypotheses), least=2)
    check_count("order", order)
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(hypotheses)} texts and {len(references)} sets of references")
    if not all(references):
        raise ValueError("a text has no reference")
    nltk, rows = _nltk_bleu(), []
    for text, own in zip(hypotheses, references, strict=True):
        precisions = [nltk.modified_precision(own, text, n) for n in range(1, order + 1)]
        counts = [
            part
            for n, one in enumerate(precisions, 1)
            for part in (one.numerator, one.denominator if len(text) >= n else 0)
        ]
        rows.append([*counts, len(text), nltk.closest_ref_length(own, len(text))])
    table = np.array(rows, dtype=float)  # (N, 2 order + 2)
    if draw is not None:
        table, texts = np.zeros((max(draw) + 1, table.shape[1])), table
        np.add.at(table, list(draw), texts)
    return _jackknifed(table, lambda sums: _bleu_of(sums, order))


def self_bleu(
    samples: Sequence[Tokens], *, num_hypotheses: int, num_references: int, order: int = 4, rng: Generator
) -> Estimate:
    """The mean sentence-BLEU of samples with other samples as references: high where samples repeat each other.

    It grows with the number of references, which belongs into its name. Each sample draws its own references among all
    others, so that one draw of references is no noise that all samples share; what is left of it (samples are one
    another's references) is not in the standard error. A precision of 0 is smoothed as .1 over the number of n-grams.
    A text of fewer than `order` words is scored by the n-grams that it has; an empty one scores 0.

    Arguments:
        samples: N texts.
        num_hypotheses: How many of them, from the first on, are scored; at least 2 and at most N.
        num_references: At most N - 1.
        rng: Draws the references, on the CPU.
    """
    check_count("num_hypotheses", num_hypotheses, least=2)
    check_count("num_references", num_references)
    check_count("the number of samples", len(samples), least=max(num_hypotheses, num_references + 1))
    nltk = _nltk_bleu()
    smooth = nltk.SmoothingFunction().method1
    scores = np.empty(num_hypotheses)
    for index in range(num_hypotheses):
        others = torch.randperm(len(samples) - 1, generator=rng)[:num_references]
        others += others >= index
        own = [samples[other] for other in others.tolist()]
        text, longest = samples[index], min(order, len(samples[index]))
        weights = [1 / longest] * longest if longest else []
        scores[index] = nltk.sentence_bleu(own, text, weights, smoothing_function=smooth) if longest else 0.0
    return Estimate(
        value=float(scores.mean()), stderr=float(scores.std(ddof=1)) / math.sqrt(num_hypotheses), n=num_hypotheses
    )


def distinct(samples: Sequence[Tokens], *, order: int) -> Estimate:
    """The number of different n-grams of N texts over the number of all their n-grams.

    It falls as N grows, so N belongs into its name. The standard error is the jackknife's.

    Raises:
        ValueError: There are fewer than two texts, or no n-gram.
    """
    check_count("the number of texts", len(samples), least=2)
    check_count("order", order)
    grams = [Counter(tuple(text[begin : begin + order]) for begin in range(len(text) - order + 1)) for text in samples]
    texts_with = Counter(gram for one in grams for gram in one)
    total = sum(sum(one.values()) for one in grams)
    if total == 0:
        raise ValueError(f"no text has {order} words")
    value = len(texts_with) / total
    # without text i, what occurs in no other is gone, and so are all of its n-grams
    alone = np.array([sum(texts_with[gram] == 1 for gram in one) for one in grams], dtype=float)
    own = np.array([sum(one.values()) for one in grams], dtype=float)
    if bool((own == total).any()):
        return Estimate(value=value, n=len(samples), kind="consistent", note="one text has all n-grams: no error")
    left = (len(texts_with) - alone) / (total - own)
    return Estimate(value=value, stderr=_spread(left), n=len(samples), kind="consistent")


def _nltk_bleu() -> Any:
    """nltk's module of BLEU. What its first import draws from Python's global generator (rich does) is put back."""
    state = random.getstate()
    from nltk.translate import bleu_score

    random.setstate(state)
    return bleu_score


def _bleu_of(sums: np.ndarray, order: int) -> np.ndarray:
    """BLEU from sums of counts (..., 2 order + 2): matches and n-grams of each order, words, words of references."""
    matches, total = sums[..., 0 : 2 * order : 2], sums[..., 1 : 2 * order : 2]
    words, of_references = sums[..., -2], sums[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.where(matches > 0, np.log(matches / total), -np.inf).mean(-1)
        brevity = np.where(words > of_references, 0.0, 1 - of_references / words)
    found: np.ndarray = np.exp(log_precision + np.where(words > 0, brevity, -np.inf))
    return found


def _jackknifed(table: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A function of column sums of (N, columns), with the error from leaving out each row."""
    sums = table.sum(0)
    stderr = _spread(statistic(sums - table))
    return Estimate(value=float(statistic(sums)), stderr=stderr, n=len(table), kind="consistent")


def _spread(left_out: np.ndarray) -> float:
    """The jackknife's standard error, from the values without each of N points."""
    num = len(left_out)
    return float(np.sqrt((num - 1) / num * np.square(left_out - left_out.mean()).sum()))
