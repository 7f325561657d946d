"""Yelp reviews of 2013 with their ratings, without the training file; the card states the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gmbench.task import Context, Measurement

from ..corpora.corpus_task import CorpusTask
from ..corpora.low_resource import accuracy, bags_of_words, choose, majority
from ..corpora.parts import Parts, held_out, rated, read_part
from ..likelihoods import BLOCK

NUM_HELD_OUT = 1000
NUM_RATINGS = 5


def from_valid(validation: Path, test: Path) -> Parts:
    """The reviews of the validation file to fit, 1000 of them held out, and the test file; ratings are classes."""
    parts = (rated(read_part(path), NUM_RATINGS) for path in (validation, test))
    return Parts(*held_out(next(parts), NUM_HELD_OUT, "yelp/from_valid"), next(parts))


class Yelp(CorpusTask):
    """Most reviews of the validation file to fit, the others to choose by, the test file to measure."""

    reader = staticmethod(from_valid)

    def measure_low_resource(self, model: Any, context: Context) -> Measurement:
        train, classes = self.train, self.train_classes
        test, test_classes, _ = self.test_sentences(self.budget["num_labelled_test"])
        assert classes is not None and test_classes is not None
        blocks = test.to(context.rng.device).split(BLOCK)
        of_test = torch.cat([model.encode(block).double().cpu() for block in blocks])
        words, words_of_test = (bags_of_words(x, self.space.vocab_size) for x in (train, test))
        found = {"low_resource.majority": majority(classes, test_classes)}
        for per_class in self.protocol["labels_per_class"]:
            # every model is given the same labels
            draws = choose(classes, per_class, self.budget["num_label_draws"], self.rng("labels", per_class))
            chosen = torch.cat(draws).unique()
            features = torch.zeros(len(train), of_test.shape[1], dtype=torch.float64)
            for block in chosen.split(BLOCK):
                features[block] = model.encode(train[block].to(context.rng.device)).double().cpu()
            key = f"{per_class}perclass"
            found[f"low_resource.{key}"] = accuracy(
                features.numpy(), classes, of_test.numpy(), test_classes, draws
            )
            found[f"low_resource.words.{key}"] = accuracy(
                words, classes, words_of_test, test_classes, draws, standardised=False
            )
        return Measurement(found)
