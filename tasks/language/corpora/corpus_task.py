"""What all corpora share: sentences or a stream as data, and every number from one log-likelihood of the test text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal

from gmbench.data.local import fetch
from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate, Kind
from gmbench.metrics.diagonal_gaussian import diagonal_gaussian
from gmbench.metrics.perplexity import bits, perplexity
from gmbench.metrics.text_overlap import bleu, distinct, self_bleu
from gmbench.model import Data, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import derive_seed
from gmbench.spaces import TokenSequence
from gmbench.task import Context, Measurement, Task

from ..latents import latents
from ..likelihoods import BLOCK, SequenceLikelihood, sequence_likelihoods
from .corpus import Corpus, Lines, Recipe, load
from .parts import Reader, hashed_order
from .sequences import rows, stream_log_prob, windows, written
from .units import Units, of_sentences, of_stream, widths
from .vocabulary import Words

MIN_DRAWS, NUM_BLOCKS = 20, 16  # of a text that is too short for draws of the protocol's size
TEXTS = ("text", "raw")  # estimators of models that split the text themselves


class Sentences(NamedTuple):
    """Test sentences (N, T), their classes, (N,), where they have some, and which of them are one draw, (N,)."""

    x: Tensor
    classes: Tensor | None
    draw: Tensor


class CorpusTask(Task):
    """A corpus in one variant. A subclass says by `reader` which lines of the card's files are which part.

    The card's protocol holds vocab_size, closed_vocabulary, unknown, max_words, lines_per_draw, active_units_threshold
    and, for `context=stream`, window, stride and block; a track's budget num_validation, num_test, num_importance,
    num_elbo, num_samples, num_self_bleu and num_references, of a stream num_validation_windows and num_test_tokens.
    """

    reader: ClassVar[Reader]
    space: TokenSequence

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        self.protocol = card.protocol
        self.streamed = self.variant["context"] == "stream"
        self.space = self.make_space()
        self._scored: tuple[Any, list[SequenceLikelihood]] | None = None

    def make_space(self) -> TokenSequence:
        """The space that the protocol's constants make, without a file being read."""
        size: int = self.protocol["vocab_size"]
        length: int = self.protocol["window"] if self.streamed else self.protocol["max_words"] + 1
        words: Any = Words(size, lambda: self.corpus.vocabulary.words)
        return TokenSequence(size, length, ends=not self.streamed, words=words)

    @property
    def recipe(self) -> Recipe:
        """How the files are read."""
        of_card = self.protocol
        return Recipe(type(self).reader, of_card["vocab_size"], of_card["closed_vocabulary"], of_card["unknown"])

    @cached_property
    def corpus(self) -> Corpus:
        """All text; UserError where a file is missing or damaged."""
        files = [file for file in self.card.data if file.needed_by(self.variant)]
        return load(self.recipe, *map(fetch, files), content=tuple(file.sha256 for file in files))

    def data(self, seed: int) -> Data:
        train, draw = self._stream_to_fit() if self.streamed else self._sentences_to_fit()
        classes = None if self.streamed else self.train_classes

        def draw_labelled(num: int, rng: Generator) -> tuple[Tensor, Tensor]:
            assert classes is not None
            chosen = torch.randint(len(train), (num,), generator=rng)
            return train[chosen], classes[chosen]

        return Data(
            self.space,
            train,
            draw,
            self.validation,
            draw_labelled=None if classes is None else draw_labelled,
            num_classes=0 if classes is None else int(classes.max()) + 1,
        )

    @cached_property
    def _train(self) -> tuple[Tensor, Tensor | None]:
        return self._rows(self.corpus.train)

    @property
    def train(self) -> Tensor:
        """Training sentences, (N, T)."""
        return self._train[0]

    @property
    def train_classes(self) -> Tensor | None:
        """Classes of the training sentences, (N,), where they have some."""
        return self._train[1]

    def _rows(self, lines: Lines) -> tuple[Tensor, Tensor | None]:
        """Lines as sentences, with the classes of their lines."""
        x, line_of = rows(lines, self.space.max_length - 1)
        return x, None if lines.classes is None else lines.classes[line_of]

    def _sentences_to_fit(self) -> tuple[Tensor, Callable[[int, Generator], Tensor]]:
        x = self.train
        return x, lambda num, rng: x[torch.randint(len(x), (num,), generator=rng)]

    def _stream_to_fit(self) -> tuple[Tensor, Callable[[int, Generator], Tensor]]:
        """Windows side by side, and draws of windows that begin anywhere."""
        ids, size = self.corpus.train.ids, self.space.max_length
        everywhere = ids.unfold(0, size, 1)  # a view
        return windows(ids, size), lambda num, rng: everywhere[torch.randint(len(everywhere), (num,), generator=rng)]

    @cached_property
    def validation(self) -> Tensor:
        """Validation points of the budget, (M, T)."""
        if self.streamed:
            x, num = windows(self.corpus.validation.ids, self.space.max_length), self.budget["num_validation_windows"]
        else:
            x, num = self._rows(self.corpus.validation)[0], self.budget["num_validation"]
        return x[hashed_order(f"{self.card.name}/validation", len(x))[:num]]

    def test_sentences(self, num: int, ids: Tensor | None = None) -> Sentences:
        """`num` test sentences, or all: always the same, the shortest first, so blocks of them need little padding.

        Lines of running text that follow each other are one draw. What is measured are whole draws, but for the last.

        Arguments:
            ids: Others than the corpus has for the words and ends of its test text, (L,).
        """
        lines = self.corpus.test if ids is None else replace(self.corpus.test, ids=ids)
        x, line_of = rows(lines, self.space.max_length - 1)
        num_lines = len(line_of.unique()) * min(num, len(x)) // len(x)  # of which about so many rows are
        together = max(1, min(self.protocol["lines_per_draw"], num_lines // MIN_DRAWS))
        draw_of = line_of // together
        order = hashed_order(f"{self.card.name}/test", int(draw_of[-1]) + 1)
        chosen = order.argsort()[draw_of].argsort(stable=True)[:num]
        chosen = chosen[(x[chosen] != TokenSequence.PAD).sum(1).argsort(stable=True)]
        classes = self.corpus.test.classes
        draw = draw_of[chosen].unique(return_inverse=True)[1]
        return Sentences(x[chosen], None if classes is None else classes[line_of[chosen]], draw)

    @cached_property
    def test(self) -> Tensor:
        """Test sentences, (N, T), or the stream, (L,), of the budget."""
        if self.streamed:
            return self.corpus.test.ids[: self.budget["num_test_tokens"]]
        return self._sentences.x

    @cached_property
    def _sentences(self) -> Sentences:
        return self.test_sentences(self.budget["num_test"])

    @property
    def block(self) -> int:
        """Positions of a stream that are one draw: the protocol's, or a sixteenth of a short text."""
        positions: int = self.protocol["block"]
        return max(1, min(positions, len(self.test) // NUM_BLOCKS))

    @cached_property
    def units(self) -> Units:
        """What the test text counts."""
        width = widths(self.corpus.vocabulary.words)
        if self.streamed:
            return of_stream(self.test, width, self.block)
        return of_sentences(self.test, width, self._sentences.draw)

    def measure_word_nats(self, model: Any, context: Context) -> Measurement:
        self._scored = None
        found = Measurement()
        for one in self._scores(model, context):
            found.estimates[f"word_nats.{one.key}"] = self._rate(one, self.units.words)
            if not found.headline:
                found.headline = f"word_nats.{one.key}"
                found.per_point = self.units.points(-one.log_p).float()
        return found

    def measure_word_perplexity(self, model: Any, context: Context) -> Measurement:
        return self._each("word_perplexity", model, context, lambda one: perplexity(self._rate(one, self.units.words)))

    def measure_bits_per_byte(self, model: Any, context: Context) -> Measurement:
        return self._each("bits_per_byte", model, context, lambda one: bits(self._rate(one, self.bytes_of(one))))

    def measure_token_perplexity(self, model: Any, context: Context) -> Measurement:
        found = {}
        for one in self._scores(model, context):
            if one.key in TEXTS:
                splitting, num = model.count_tokens(self.texts(one.key))
                found[f"token_perplexity.{one.key}.{splitting}"] = perplexity(self._rate(one, num.double()))
        return Measurement(found)

    def measure_nll(self, model: Any, context: Context) -> Measurement:
        if self.streamed:
            raise MissingCapability("a stream is one text and no sentences: word_nats is its rate")
        return self._each("nll", model, context, lambda one: self._rate(one, self.units.sentences))

    def measure_latents(self, model: Any, context: Context) -> Measurement:
        self._need_sentences()
        posterior = self._posterior(model, context)
        threshold = self.protocol["active_units_threshold"]
        found = latents(posterior, model.prior(), threshold=threshold, rng=context.rng)
        of_posterior, of_prior = (diagonal_gaussian("a distribution", one) for one in (posterior, model.prior()))
        kl = of_posterior.kl_from(of_prior).cpu()
        found[f"kl.n{len(kl)}"] = self.units.rate(kl, self.units.sentences, "exact")
        if self.units.draw is not None:
            for name in ("lower", "upper"):
                key = f"mutual_information.{name}.n{len(kl)}"
                note = "; ".join(filter(None, (found[key].note, "its error takes sentences for independent draws")))
                found[key] = found[key].model_copy(update={"note": note})
        if offers(model, "log_likelihood"):
            elbo = next(one for one in self._scores(model, context) if one.key == "elbo")
            found["reconstruction.nats"] = self.units.rate(-elbo.log_p - kl, self.units.sentences, "exact")
        return Measurement(found)

    def measure_reconstruction(self, model: Any, context: Context) -> Measurement:
        self._need_sentences()
        blocks = self.test.to(context.rng.device).split(BLOCK)
        found = words_of(torch.cat([model.reconstruct(block).cpu() for block in blocks]))
        draw = None if self.units.draw is None else self.units.draw.tolist()
        return Measurement({"reconstruction.bleu4": bleu(found, [[text] for text in words_of(self.test)], draw=draw)})

    def measure_diversity(self, model: Any, context: Context) -> Measurement:
        self._need_sentences()
        names = ("num_samples", "num_self_bleu", "num_references")
        num_samples, num_scored, num_references = (self.budget[name] for name in names)
        real = self.train[hashed_order(f"{self.card.name}/diversity", len(self.train))[:num_samples]]
        found = {}
        for suffix, x in (("", context.draws(num_samples)), (".train", real)):
            texts = words_of(x)
            for order in self.protocol["distinct_orders"]:
                if any(len(text) >= order for text in texts):
                    found[f"diversity.distinct{order}.n{len(texts)}{suffix}"] = distinct(texts, order=order)
            rng = self.rng("self-BLEU") if suffix else on_cpu(context.rng)
            num_hypotheses, num = min(num_scored, len(texts)), min(num_references, len(texts) - 1)
            found[f"diversity.self_bleu4.refs{num}{suffix}"] = self_bleu(
                texts, num_hypotheses=num_hypotheses, num_references=num, rng=rng
            )
        return Measurement(found)

    def measure_pseudo_perplexity(self, model: Any, context: Context) -> Measurement:
        self._need_sentences()
        blocks = self.test.to(context.rng.device).split(BLOCK)
        nats = -torch.cat([model.pseudo_log_prob(block).double().cpu() for block in blocks])
        found = perplexity(self.units.rate(nats, self.units.words, "exact"))
        note = "each word given all others: of no distribution over texts, and no perplexity"
        return Measurement({"pseudo_perplexity": found.model_copy(update={"note": note})})

    def _scores(self, model: Any, context: Context) -> list[SequenceLikelihood]:
        """The log-likelihoods that every number is made of: made by the headline, which the card names first."""
        if self._scored is None or self._scored[0] is not model:
            self._scored = model, self._scores_anew(model, context)
        return self._scored[1]

    def _scores_anew(self, model: Any, context: Context) -> list[SequenceLikelihood]:
        if not self.streamed:
            return sequence_likelihoods(model, self.test, self.space, self.budget, context.rng)
        found = []
        if offers(model, "token_log_prob"):
            size, stride = self.protocol["window"], self.protocol["stride"]
            log_p = stream_log_prob(model.token_log_prob, self.test, size, stride, context.rng.device)
            found.append(SequenceLikelihood("exact", "exact", log_p))
        if offers(model, "score_text"):
            log_p = model.score_text(self.texts("text")).double().cpu()
            found.append(SequenceLikelihood("text", "lower_bound", log_p))
        if not found:
            raise MissingCapability("a stream needs token_log_prob or score_text, and the model offers neither")
        return found

    def texts(self, key: str) -> list[str]:
        """The test text as a model of text reads it: sentences, or blocks of the stream; what is not known is <unk>."""
        return [written(ids, self.corpus.vocabulary.words) for ids in self._pieces(self.test)]

    def bytes_of(self, one: SequenceLikelihood) -> Tensor:
        """Bytes of the text that was scored, (N,)."""
        return self.units.utf8

    def _pieces(self, x: Tensor) -> Sequence[Tensor]:
        """What a model of text scores as one text each."""
        return x.split(self.block) if self.streamed else x.unbind(0)

    def _each(
        self, name: str, model: Any, context: Context, made: Callable[[SequenceLikelihood], Estimate]
    ) -> Measurement:
        return Measurement({f"{name}.{one.key}": made(one) for one in self._scores(model, context)})

    def _rate(self, one: SequenceLikelihood, units: Tensor) -> Estimate:
        kind: Kind = one.kind
        return self.units.rate(-one.log_p, units, kind)

    def _posterior(self, model: Any, context: Context) -> Distribution:
        """q(z | x) of the test sentences."""
        blocks = self.test.to(context.rng.device).split(BLOCK)
        parts = [diagonal_gaussian("the posterior", model.posterior(block)) for block in blocks]
        return Independent(Normal(torch.cat([one.mean for one in parts]), torch.cat([one.std for one in parts])), 1)

    def _need_sentences(self) -> None:
        if self.streamed:
            raise MissingCapability("windows of a stream are cut anywhere: context=sentence measures this")


def words_of(x: Tensor) -> list[list[int]]:
    """The words of sentences x (B, T), their ends apart."""
    return [[token for token in row if token > TokenSequence.EOS] for row in x.tolist()]


def on_cpu(rng: Generator) -> Generator:
    """A stream on the CPU that follows from another one, wherever that is."""
    return torch.Generator().manual_seed(derive_seed("corpus/cpu", rng.initial_seed()))
