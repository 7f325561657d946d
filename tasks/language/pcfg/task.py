"""The grammar task: likelihoods against the exact truth, agreement over distances, samples, and what classes allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.metrics.likelihood import nll
from gmbench.metrics.mauve import mauve
from gmbench.metrics.perplexity import nats_per_unit, perplexity, rate_per_point
from gmbench.metrics.text_overlap import distinct, self_bleu
from gmbench.model import Data, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import derive_seed, stream
from gmbench.task import Context, Measurement, Task

from ..latents import latents
from ..likelihoods import SequenceLikelihood, sequence_likelihoods
from .agreement import by_distance, distances
from .features import features, standardised
from .grammar import FIRST_WORD
from .grammars import closers, language
from .language import Language
from .low_resource import few_label_accuracy


class PCFG(Task):
    """The task in one variant; see the card for the protocol."""

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        self.truth = _language(self.variant["grammar"], card.protocol["max_length"])
        self.space = self.truth.space
        self._scored: tuple[Any, Tensor, list[SequenceLikelihood]] | None = None

    def data(self, seed: int) -> Data:
        truth, protocol = self.truth, self.card.protocol
        names = ("pcfg/data", self.card.version, self.variant["grammar"], seed)
        rng = stream(*names, "train")
        classes = truth.draw_classes(protocol["num_train"], rng=rng)
        train = truth.grammar.draw(truth.theta, classes, truth.max_length, rng=rng)
        validation = truth.sample(protocol["num_validation"], rng=stream(*names, "validation"))

        def draw_labelled(num: int, rng: Generator) -> tuple[Tensor, Tensor]:
            rows = torch.randint(len(train), (num,), generator=rng)
            return train[rows], classes[rows]

        has_classes = truth.num_classes > 1
        return Data(
            self.space,
            train,
            lambda num, rng: draw_labelled(num, rng)[0],
            validation,
            truth,
            draw_labelled if has_classes else None,
            truth.num_classes if has_classes else 0,
        )

    @cached_property
    def labelled_test(self) -> tuple[Tensor, Tensor]:
        """Test sentences of the budget, (N, T), and their classes, (N,)."""
        rng = self.rng("test")
        classes = self.truth.draw_classes(self.budget["num_test"], rng=rng)
        return self.truth.grammar.draw(self.truth.theta, classes, self.truth.max_length, rng=rng), classes

    @property
    def test(self) -> Tensor:
        return self.labelled_test[0]

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        x, scored = self._likelihoods(model, context)
        log_p_true, words, found = self.truth.log_prob(x), _words(x), Measurement()
        for one in scored:
            gap, key = log_p_true - one.log_p, f"excess_nats.{one.key}"
            found.estimates[key] = nats_per_unit(gap, words, one.kind)
            if not found.headline:
                found.headline, found.per_point = key, rate_per_point(gap, words).float()
        return found

    def measure_nll(self, model: Any, context: Context) -> Measurement:
        x, scored = self._likelihoods(model, context)
        words, found = _words(x), self._floors()
        for one in [*scored, SequenceLikelihood("oracle", "exact", self.truth.log_prob(x))]:
            rate = nats_per_unit(-one.log_p, words, one.kind)
            found[f"nll.{one.key}"] = nll(one.log_p, one.kind)
            found[f"nll.{one.key}.per_word"] = rate
            found[f"perplexity.{one.key}"] = perplexity(rate)
        return Measurement(found)

    def measure_agreement(self, model: Any, context: Context) -> Measurement:
        x, scored = self._likelihoods(model, context)
        by_token = next((one.by_token for one in scored if one.by_token is not None), None)
        if by_token is None:
            raise MissingCapability("needs token_log_prob, which the model declines")
        excess = self.truth.token_log_prob(x) - by_token
        distance = distances(self.truth.grammar, x, closers(self.truth.grammar))
        bins = by_distance(excess, distance, self.card.protocol["agreement_distances"])
        return Measurement({f"agreement.{name}": one for name, one in bins.items()})

    def measure_grammaticality(self, model: Any, context: Context) -> Measurement:
        num = self.budget["num_samples"]
        x = context.draws(num)
        right = self.truth.grammar.parse(x).complete
        found = {f"grammaticality.n{num}": _mean(right.double())}
        if int(right.sum()) > 1:  # whether they are as long and as rare as sentences are
            found[f"grammatical.oracle_nats.n{num}"] = nll(self.truth.log_prob(x[right]), "exact")
            found[f"grammatical.words.n{num}"] = _mean(_words(x[right]).double())
            found["grammatical.oracle_nats.floor"] = self._floors()["nll.floor"]
            found["grammatical.words.floor"] = Estimate(value=self.truth.mean_length, kind="exact", note="E[length]")
        return Measurement(found)

    def measure_diversity(self, model: Any, context: Context) -> Measurement:
        num, of_truth = self.budget["num_samples"], self._reference_samples("diversity")
        found = {}
        for suffix, x in (("", context.draws(num)), (".truth", of_truth)):
            texts = [[token for token in row if token >= FIRST_WORD] for row in x.tolist()]
            for order in self.card.protocol["distinct_orders"]:
                if any(len(text) >= order for text in texts):
                    found[f"diversity.distinct{order}.n{num}{suffix}"] = distinct(texts, order=order)
            num_scored, num_references = self.budget["num_self_bleu"], self.budget["num_references"]
            rng = self.rng("self-BLEU") if suffix else _cpu(context.rng)
            key = f"diversity.self_bleu4.refs{num_references}{suffix}"
            found[key] = self_bleu(texts, num_hypotheses=num_scored, num_references=num_references, rng=rng)
        return Measurement(found)

    def measure_divergence(self, model: Any, context: Context) -> Measurement:
        num, clusters = self.budget["num_samples"], self.budget["num_clusters"]
        real = features(self.truth.grammar, self._reference_samples("divergence"))
        others = {"": context.draws(num), ".truth": self._reference_samples("divergence", 1)}
        return Measurement({
            f"divergence.mauve.k{clusters}.n{num}{suffix}": mauve(
                standardised(features(self.truth.grammar, x), real),
                standardised(real, real),
                num_clusters=clusters,
                rng=self.rng("divergence", "clusters") if suffix else _cpu(context.rng),
            )
            for suffix, x in others.items()
        })  # fmt: skip

    def measure_guided(self, model: Any, context: Context) -> Measurement:
        self._need_classes()
        num, num_classes = self.budget["num_samples"], self.truth.num_classes
        given = torch.arange(num) % num_classes
        x = _guided(model, given.to(context.rng.device), context.rng).cpu()
        found = {}
        for suffix, one in (("", x), (".truth", self.truth.sample(num, given=given, rng=self.rng("guided")))):
            p = self.truth.class_probabilities(one)
            found[f"guided.n{num}{suffix}"] = _mean(p[torch.arange(num), given])
            hit = (p.argmax(1) == given) & (p.sum(1) > 0)
            found[f"guided.accuracy.n{num}{suffix}"] = _mean(hit.double())
        note = "what samples get that do not know the class they are asked for"
        return Measurement(found | {"guided.floor": Estimate(value=1 / num_classes, kind="exact", note=note)})

    def measure_low_resource(self, model: Any, context: Context) -> Measurement:
        self._need_classes()
        protocol, rng = self.card.protocol, self.rng("labels")
        classes = torch.arange(protocol["num_labelled"]) % self.truth.num_classes
        pool = self.truth.sample(len(classes), given=classes, rng=rng)
        test, test_classes = self.labelled_test
        # with the counts of words, which any model has, beside what it makes of them
        pairs = {
            "": (_encoded(model, pool, context), _encoded(model, test, context)),
            ".counts": (self._counts(pool), self._counts(test)),
        }
        found = {}
        for suffix, (of_pool, of_test) in pairs.items():
            for per_class in protocol["few_labels"]:
                found[f"low_resource.{per_class}perclass{suffix}"] = few_label_accuracy(
                    of_pool,
                    classes,
                    of_test,
                    test_classes,
                    per_class=per_class,
                    num_draws=self.budget["num_few_draws"],
                    rng=self.rng("choices", per_class),
                )
        p = self.truth.class_probabilities(test)
        found["low_resource.bayes"] = _mean((p.argmax(1) == test_classes).double())
        return Measurement(found)

    def measure_pseudo_perplexity(self, model: Any, context: Context) -> Measurement:
        x = self.test[: self.budget["num_bound"]]
        of_model = torch.cat([model.pseudo_log_prob(block.to(context.rng.device)).cpu() for block in x.split(256)])
        found = {}
        for suffix, log_p in (("", of_model.double()), (".oracle", self.truth.pseudo_log_prob(x))):
            rate = nats_per_unit(-log_p, _words(x))
            found |= {f"pseudo_nats.per_word{suffix}": rate, f"pseudo_perplexity{suffix}": perplexity(rate)}
        return Measurement(found)

    def measure_latents(self, model: Any, context: Context) -> Measurement:
        posterior = model.posterior(self.test.to(context.rng.device))
        threshold = self.card.protocol["active_units_threshold"]
        return Measurement(latents(posterior, model.prior(), threshold=threshold, rng=context.rng))

    def _likelihoods(self, model: Any, context: Context) -> tuple[Tensor, list[SequenceLikelihood]]:
        """Test sentences (M, T) and every likelihood of them; kept, since metrics in turn ask and bounds are dear.

        Models with latents get the first `num_bound` of the sentences. Sorted by length, they need little padding.
        """
        if self._scored is None or self._scored[0] is not model:
            x = self.test[: self.budget["num_bound"]] if offers(model, "log_likelihood") else self.test
            order = _words(x).argsort(stable=True)
            scored = sequence_likelihoods(model, x[order], self.space, self.budget, context.rng)
            back = order.argsort()
            self._scored = (model, x, [_reordered(one, back) for one in scored])
        return self._scored[1:]

    def _floors(self) -> dict[str, Estimate]:
        """H(X) and its perplexity: exact without classes, otherwise H(X | C) + I(X; C), of which I is drawn."""
        truth, words = self.truth, self.truth.mean_length
        if truth.num_classes == 1:
            entropy = Estimate(value=truth.entropy_given_class, kind="exact", note="H(X), closed form")
        else:
            given, drawn = truth.entropy_given_class, self._information
            note = f"H(X | C) = {given:.4f}, exact, and I(X; C) = {drawn.value:.4f}, drawn"
            entropy = drawn.model_copy(update={"value": given + drawn.value, "note": note})
        stderr = None if entropy.stderr is None else entropy.stderr / words
        rate = entropy.model_copy(update={"value": entropy.value / words, "stderr": stderr})
        return {"nll.floor": entropy, "perplexity.floor": perplexity(rate)}

    @cached_property
    def _information(self) -> Estimate:
        return _mean(self.truth.information(self.card.protocol["num_information"], rng=self.rng("information")))

    def _reference_samples(self, metric: str, number: int = 0) -> Tensor:
        """The truth's own samples, as many as the model's."""
        return self.truth.sample(self.budget["num_samples"], rng=self.rng(metric, number))

    def _counts(self, x: Tensor) -> Tensor:
        """How often each word occurs, (N, V) float64."""
        ones = torch.ones_like(x, dtype=torch.float64)
        return torch.zeros(len(x), self.space.vocab_size, dtype=torch.float64).scatter_add_(1, x, ones)[:, FIRST_WORD:]

    def _need_classes(self) -> None:
        if self.truth.num_classes == 1:
            raise MissingCapability("the sentences of this variant have no classes")


@cache
def _language(name: str, max_length: int) -> Language:
    return language(name, max_length)


def _words(x: Tensor) -> Tensor:
    """What a sentence counts in the denominator: its words, without its end, (N,)."""
    return (x >= FIRST_WORD).sum(1)


def _mean(values: Tensor) -> Estimate:
    return Estimate(value=float(values.mean()), stderr=float(values.std()) / math.sqrt(len(values)), n=len(values))


def _reordered(one: SequenceLikelihood, order: Tensor) -> SequenceLikelihood:
    by_token = None if one.by_token is None else one.by_token[order]
    return SequenceLikelihood(one.key, one.kind, one.log_p[order], by_token)


def _guided(model: Any, given: Tensor, rng: Generator) -> Tensor:
    try:
        x: Tensor = model.sample(len(given), given=given, rng=rng)
    except TypeError as error:
        if "given" not in str(error):
            raise
        raise MissingCapability("the model's sample takes no `given`: it cannot be asked for a class") from None
    return x


def _encoded(model: Any, x: Tensor, context: Context) -> Tensor:
    return torch.cat([model.encode(block.to(context.rng.device)).cpu() for block in x.split(500)])


def _cpu(rng: Generator) -> Generator:
    return torch.Generator().manual_seed(derive_seed("pcfg/cpu", rng.initial_seed()))
