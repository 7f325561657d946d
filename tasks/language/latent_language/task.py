"""A language of known latents: excess nats over the truth, and what a model's latents know of the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.estimate import Estimate
from gmbench.metrics.importance_bound import evidence_bound
from gmbench.metrics.likelihood import nll
from gmbench.metrics.perplexity import nats_per_unit, perplexity, rate_per_point
from gmbench.model import Data, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import stream
from gmbench.spaces import TokenSequence
from gmbench.task import Context, Measurement, Task

from ..latents import latents
from ..likelihoods import SequenceLikelihood, sequence_likelihoods
from .language import ProbitPolya
from .travel import correlation, moves, on_the_line


class LatentLanguage(Task):
    """The task in one variant; see the card for the protocol."""

    space: TokenSequence

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        num_blocks, _, block_length = self.variant["size"].partition("x")
        self.truth = ProbitPolya(
            int(num_blocks),
            int(block_length),
            interleaved=self.variant["blocks"] == "interleaved",
            num_latents=card.protocol["latents_per_block"] * int(num_blocks),
        )
        self.space = self.truth.space
        self._scored: tuple[Any, list[SequenceLikelihood]] | None = None

    def data(self, seed: int) -> Data:
        names = ("latent_language/data", self.card.version, self.variant["size"], self.variant["blocks"], seed)
        train = self.truth.sample(self.card.protocol["num_train"], rng=stream(*names, "train"))
        validation = self.truth.sample(self.card.protocol["num_validation"], rng=stream(*names, "validation"))

        def draw(num: int, rng: Generator) -> Tensor:
            return train[torch.randint(len(train), (num,), generator=rng)]

        return Data(self.space, train, draw, validation, self.truth)

    @cached_property
    def points(self) -> Tensor:
        """All test sentences of the task's version, (N, A T + 1)."""
        return self.truth.sample(self.card.protocol["num_test"], rng=self.rng("test"))

    @property
    def test(self) -> Tensor:
        """Those of the budget."""
        return self.points[: self.budget["num_test"]]

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        log_p_true, found = self.truth.log_prob(self.test), Measurement()
        for one in self._likelihoods(model, context):
            gap, key = log_p_true - one.log_p, f"excess_nats.{one.key}"
            found.estimates[key] = nats_per_unit(gap, self._words, one.kind)
            if not found.headline:
                found.headline, found.per_point = key, rate_per_point(gap, self._words).float()
        return found

    def measure_nll(self, model: Any, context: Context) -> Measurement:
        entropy = Estimate(value=self.truth.entropy, kind="exact", note="H(X)")
        rate = entropy.model_copy(update={"value": self.truth.entropy / self.truth.num_words})
        found = {"nll.floor": entropy, "perplexity.floor": perplexity(rate)}
        for one in self._likelihoods(model, context):
            found[f"nll.{one.key}"] = nll(one.log_p, one.kind)
            found[f"perplexity.{one.key}"] = perplexity(nats_per_unit(-one.log_p, self._words, one.kind))
        return Measurement(found)

    def measure_pseudo_perplexity(self, model: Any, context: Context) -> Measurement:
        x = self.test.to(context.rng.device)
        of_model = torch.cat([model.pseudo_log_prob(block).double().cpu() for block in x.split(256)])
        found = {}
        for suffix, log_p in (("", of_model), (".truth", self.truth.pseudo_log_prob(self.test))):
            rate = nats_per_unit(-log_p, self._words)
            found |= {f"pseudo_nats.per_word{suffix}": rate, f"pseudo_perplexity{suffix}": perplexity(rate)}
        return Measurement(found)

    def measure_latents(self, model: Any, context: Context) -> Measurement:
        x = self.points[: self.budget["num_information"]]
        posterior = model.posterior(x.to(context.rng.device))
        threshold = self.card.protocol["active_units_threshold"]
        exact = {
            "mutual_information.truth": (self.truth.information, "I(X; Z), which is also the KL of the true posterior"),
            "active_units.truth": (self.truth.num_blocks, "A"),
        }  # fmt: skip
        return Measurement(
            latents(posterior, model.prior(), threshold=threshold, rng=context.rng)
            | {name: Estimate(value=value, kind="exact", note=note) for name, (value, note) in exact.items()}
        )

    def measure_reconstruction(self, model: Any, context: Context) -> Measurement:
        x, found = self.test, {}
        if all(offers(model, name) for name in ("prior", "posterior", "log_likelihood")):
            parts = (model.prior(), model.posterior, model.log_likelihood, x.to(context.rng.device))
            bound = evidence_bound(*parts, num_draws=self.budget["num_elbo"], rng=context.rng)
            found["reconstruction.nats"] = _mean(-bound.reconstruction.cpu())
            note = "H(X | Z): with the true posterior; one that knows more of its sentence has less, at a higher KL"
            found["reconstruction.nats.truth"] = Estimate(value=self.truth.conditional_entropy, kind="exact", note=note)
        if offers(model, "reconstruct"):
            given_back = model.reconstruct(x.to(context.rng.device)).cpu()
            found["reconstruction.wrong"] = _mean(self._wrong(given_back))
            found["reconstruction.wrong.truth"] = _mean(self._wrong(self.truth.reconstruct(x)))
        return Measurement(found)

    def measure_interpolation(self, model: Any, context: Context) -> Measurement:
        num = self.budget["num_pairs"]
        x, found = self.points[: 2 * num], {}
        true_path = on_the_line(self._true_means(x).reshape(num, 2, -1), self.card.protocol["num_steps"])
        expected = torch.special.ndtr(true_path).flatten(1)  # (P, S A)
        for suffix, one, device in (("", model, context.rng.device), (".truth", self.truth, torch.device("cpu"))):
            means = one.posterior(x.to(device)).mean
            path = on_the_line(means.reshape(num, 2, -1), self.card.protocol["num_steps"])
            frequencies = self._decoded(one, path.flatten(0, 1)).reshape(num, path.shape[1], -1)  # (P, S, A)
            found[f"interpolation.correlation{suffix}"] = correlation(frequencies.flatten(1), expected)
            moved, straight = moves(frequencies)
            found[f"interpolation.moved{suffix}"] = _mean(moved.double().mean(1))
            some = moved.any(1)
            if bool(some.any()):
                share = nats_per_unit(straight[some].sum(1), moved[some].sum(1))
                found[f"interpolation.monotone{suffix}"] = share
        return Measurement(found)

    def measure_arithmetic(self, model: Any, context: Context) -> Measurement:
        num = self.budget["num_pairs"]
        x, found = self.points[: 3 * num], {}
        expected = torch.special.ndtr(_sum(self._true_means(x)))  # (P, A)
        for suffix, one, device in (("", model, context.rng.device), (".truth", self.truth, torch.device("cpu"))):
            frequencies = self._decoded(one, _sum(one.posterior(x.to(device)).mean))
            found[f"arithmetic.correlation{suffix}"] = correlation(frequencies, expected)
        return Measurement(found)

    def _likelihoods(self, model: Any, context: Context) -> list[SequenceLikelihood]:
        """Every likelihood of the test sentences; kept, since two metrics in turn ask and bounds are dear."""
        if self._scored is None or self._scored[0] is not model:
            self._scored = (model, sequence_likelihoods(model, self.test, self.space, self.budget, context.rng))
        return self._scored[1]

    @property
    def _words(self) -> Tensor:
        return torch.full((len(self.test),), self.truth.num_words)

    def _true_means(self, x: Tensor) -> Tensor:
        """E[z | x] of the latents that matter, (B, A), float64, exact."""
        return self.truth.encode(x)[:, : self.truth.num_blocks]

    def _decoded(self, model: Any, z: Tensor) -> Tensor:
        """Frequencies of ones in the blocks of the sentences that latents z (B, Z) become, (B, A)."""
        return self.truth.frequencies(torch.cat([model.decode(some).cpu() for some in z.split(500)]))

    def _wrong(self, given_back: Tensor) -> Tensor:
        """The share of wrong words of each test sentence, (N,)."""
        num = self.truth.num_words
        return (given_back[:, :num] != self.test[:, :num]).double().mean(1)


def _sum(means: Tensor) -> Tensor:
    """a - b + c of every three rows of means (3 P, Z), (P, Z)."""
    a, b, c = means.reshape(-1, 3, means.shape[1]).unbind(1)
    return a - b + c


def _mean(values: Tensor) -> Estimate:
    return Estimate(value=float(values.mean()), stderr=float(values.std()) / len(values) ** 0.5, n=len(values))
