"""Backwards through a noisy cipher: translation whose conditional entropy and alignment are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.likelihood import nll
from gmbench.metrics.perplexity import nats_per_unit, perplexity, rate_per_point
from gmbench.metrics.text_overlap import bleu
from gmbench.model import Data
from gmbench.plugin import TaskCard
from gmbench.randomness import stream
from gmbench.spaces import TokenPair, TokenSequence
from gmbench.task import Context, Measurement, Task

from ..likelihoods import SequenceLikelihood, sequence_likelihoods
from .cipher import FIRST, CipherChannel
from .translations import exact_match

BLOCK = 256


class SequenceCipher(Task):
    """The task in one variant; see the card for the protocol."""

    space: TokenPair

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        shortest, longest = card.protocol["shortest"], card.protocol["longest"]
        self.truth = CipherChannel(float(self.variant["noise"]), shortest=shortest, longest=longest)
        self.space = self.truth.space
        self._scored: tuple[Any, list[SequenceLikelihood]] | None = None

    def data(self, seed: int) -> Data:
        names = ("seq2seq_cipher/data", self.card.version, self.variant["noise"], seed)
        train = self.truth.pairs(self.card.protocol["num_train"], rng=stream(*names, "train"))
        validation = self.truth.pairs(self.card.protocol["num_validation"], rng=stream(*names, "validation"))

        def draw(num: int, rng: Generator) -> Tensor:
            return train[torch.randint(len(train), (num,), generator=rng)]

        return Data(self.space, train, draw, validation, self.truth)

    @cached_property
    def test(self) -> Tensor:
        """Test pairs of the budget, (N, S + T)."""
        pairs = self.truth.pairs(self.card.protocol["num_test"], rng=self.rng("test"))
        return pairs[: self.budget["num_test"]]

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        log_p_true, words, found = self.truth.log_prob(self.test), self._num_words, Measurement()
        for one in self._likelihoods(model, context):
            gap, key = log_p_true - one.log_p, f"excess_nats.{one.key}"
            found.estimates[key] = nats_per_unit(gap, words, one.kind)
            if not found.headline:
                found.headline, found.per_point = key, rate_per_point(gap, words).float()
        return found

    def measure_nll(self, model: Any, context: Context) -> Measurement:
        rate = Estimate(value=self.truth.entropy_of_word, kind="exact", note="H(Y | X) a word")
        found = {
            "nll.floor": Estimate(value=self.truth.entropy, kind="exact", note="H(Y | X)"),
            "perplexity.floor": perplexity(rate),
        }
        for one in self._likelihoods(model, context):
            found[f"nll.{one.key}"] = nll(one.log_p, one.kind)
            found[f"perplexity.{one.key}"] = perplexity(nats_per_unit(-one.log_p, self._num_words, one.kind))
        return Measurement(found)

    def measure_alignment(self, model: Any, context: Context) -> Measurement:
        blocks = self.test.split(BLOCK)
        attention = torch.cat([model.attention(x.to(context.rng.device)).float().cpu() for x in blocks])  # (N, T, S)
        origin = self.truth.attention(self.test).argmax(2)  # (N, T)
        _, target = self.space.split(self.test)
        words = target >= FIRST  # (N, T): the alignment of EOS is not asked for
        right = ((attention.argmax(2) == origin) & words).sum(1)
        mass = attention.gather(2, origin[:, :, None])[:, :, 0].double().masked_fill(~words, 0.0).sum(1)
        note = "one of the source's words, all alike, for every word of these targets"
        chance = Estimate(value=len(words) / int(words.sum()), kind="exact", note=note)
        return Measurement({
            "alignment.accuracy": nats_per_unit(right, self._num_words),
            "alignment.mass": nats_per_unit(mass, self._num_words),
            "alignment.chance": chance,
        })  # fmt: skip

    def measure_bleu(self, model: Any, context: Context) -> Measurement:
        num = self.budget["num_translations"]
        source, _ = self.space.split(self.test[:num])
        references = self._split(self.truth.plain(source))
        drawn = model.sample(len(source), given=source.to(context.rng.device), rng=context.rng).cpu()
        of_truth = self.truth.sample(len(source), given=source, rng=self.rng("translations"))
        found = {}
        for suffix, targets in (("", drawn), (".truth", of_truth)):
            self.space.target.validate(targets, "the model's translations")
            translations = self._split(targets)
            found[f"bleu4.sampled{suffix}"] = bleu(translations, [[one] for one in references])
            found[f"exact_match.sampled{suffix}"] = exact_match(translations, references)
        return Measurement(found)

    def _likelihoods(self, model: Any, context: Context) -> list[SequenceLikelihood]:
        """Every likelihood of the test pairs; kept, since two metrics in turn ask."""
        if self._scored is None or self._scored[0] is not model:
            found = sequence_likelihoods(model, self.test, self._targets, self.budget, context.rng)
            self._scored = (model, found)
        return self._scored[1]

    @property
    def _targets(self) -> TokenSequence:
        return self.space.target

    @property
    def _num_words(self) -> Tensor:
        """Words of each test target, (N,)."""
        return (self.space.split(self.test)[1] >= FIRST).sum(1)

    def _split(self, targets: Tensor) -> list[list[str]]:
        return [text.split() for text in self._targets.text(targets)]
