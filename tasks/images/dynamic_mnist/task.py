"""Binary images: log-likelihoods of every kind, sample quality, latents, representations and memorisation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from gmbench.data.local import fetch, file_of
from gmbench.errors import MissingCapability
from gmbench.estimate import Estimate
from gmbench.judge import load_judge
from gmbench.metrics.auc import auc
from gmbench.metrics.latent_information import active_units, kl, mutual_information
from gmbench.metrics.likelihood import excess_nats, nll
from gmbench.metrics.memorisation import nearest_by_hamming, nn_ratio
from gmbench.metrics.mmd2 import exp_hamming, mmd2, permutation_null
from gmbench.model import Data, offers
from gmbench.plugin import TaskCard
from gmbench.randomness import derive_seed, stream
from gmbench.spaces import BinaryVector
from gmbench.task import Context, Measurement, Task

from .exact import ExactImages, NoisyBars, SmallHarmonium
from .gallery import grid
from .nll import log_likelihoods, score
from .outliers import bars_and_stripes, mirrored
from .probes import few_label_accuracy, probe_accuracy
from .quality import feature_distances
from .sources import ImageSet, binarize, load

EXACT: dict[str, type[ExactImages]] = {"exact4_bars": NoisyBars, "exact4_rbm": SmallHarmonium}
LAYOUTS = {"exact4_bars": (4, 4), "exact4_rbm": (4, 4), "digits8": (8, 8)}
ENCODERS = {"mnist_static": "mnist"}  # images of one kind, of which only mnist has classes
SILHOUETTES = "caltech101_silhouettes/caltech101_silhouettes_28.mat"
OF_DIGITS = ("mnist", "mnist_static")  # silhouettes are images of another kind, of the same size
SHOWN = 64  # images of a gallery


class DynamicMNIST(Task):
    """The task in one variant; see the card for the protocol."""

    space: BinaryVector

    def __init__(self, card: TaskCard, variant: Mapping[str, str], track: str) -> None:
        super().__init__(card, variant, track)
        self.name = self.variant["data"]
        self.layout = LAYOUTS.get(self.name, (28, 28))
        self.space = BinaryVector(self.layout[0] * self.layout[1], layout=self.layout)
        self.truth = _truth(self.name) if self.name in EXACT else None

    @cached_property
    def images(self) -> ImageSet:
        """The variant's images; UserError where a file is missing or damaged."""
        return load(self.name, lambda path: fetch(file_of(self.card, path)))

    def data(self, seed: int) -> Data:
        if self.truth is not None:
            truth = self.truth
            names = ("dynamic_mnist/data", self.card.version, self.name, seed)
            held_out = truth.sample(self.card.protocol["num_validation_exact"], rng=stream(*names, "validation"))
            return Data(self.space, None, lambda num, rng: truth.sample(num, rng=rng), held_out, truth)
        images = self.images
        if self.name in OF_DIGITS:  # what is measured with it should not be missing after the fit
            fetch(file_of(self.card, SILHOUETTES))

        def draw_rows(num: int, rng: Generator) -> tuple[Tensor, Tensor]:
            rows = torch.randint(len(images.train), (num,), generator=rng)
            x = images.train[rows]
            return (binarize(x, rng) if images.dynamic else x), rows

        def draw_labelled(num: int, rng: Generator) -> tuple[Tensor, Tensor]:
            assert images.train_classes is not None
            x, rows = draw_rows(num, rng)
            return x, images.train_classes[rows]

        return Data(
            self.space,
            None if images.dynamic else images.train,
            lambda num, rng: draw_rows(num, rng)[0],
            images.validation,
            draw_labelled=None if images.train_classes is None else draw_labelled,
            num_classes=images.num_classes,
        )

    @cached_property
    def test(self) -> Tensor:
        """Test points of the budget, (N, D)."""
        num = self.budget["num_test"]
        return self.truth.sample(num, rng=self.rng("test")) if self.truth is not None else self.images.test[:num]

    @cached_property
    def train(self) -> Tensor:
        """One binarization of the training images, (M, D), the same for every run; fresh draws where there are none."""
        if self.truth is not None:
            return self.truth.sample(5000, rng=self.rng("train"))
        return binarize(self.images.train, self.rng("train")) if self.images.dynamic else self.images.train

    def measure_nll(self, model: Any, context: Context) -> Measurement:
        found = Measurement()
        for one in log_likelihoods(model, self.test, self.train, self.budget, context.rng):
            found.estimates[f"nll.{one.key}"] = nll(one.log_p, one.kind, log_z_stderr=one.log_z_stderr)
            if not found.headline:
                found.headline, found.per_point = f"nll.{one.key}", -one.log_p.float()
        if self.truth is not None:
            found.estimates["nll.floor"] = Estimate(value=self.truth.entropy, kind="exact", note="entropy of the truth")
        return found

    def measure_excess_nats(self, model: Any, context: Context) -> Measurement:
        if self.truth is None:
            raise MissingCapability("the truth of these images is not known")
        log_p_true = self.truth.log_prob(self.test)
        return Measurement({
            f"excess_nats.{one.key}": excess_nats(one.log_p, log_p_true, one.kind, log_z_stderr=one.log_z_stderr)
            for one in log_likelihoods(model, self.test, self.train, self.budget, context.rng)
        })  # fmt: skip

    def measure_latents(self, model: Any, context: Context) -> Measurement:
        posterior = model.posterior(self.test.to(context.rng.device))
        threshold = self.card.protocol["active_units_threshold"]
        information = mutual_information(posterior, rng=context.rng)
        pictures = {}
        if offers(model, "decode"):
            pictures["interpolation"] = grid([self._interpolation(model, posterior.mean)], self.layout, columns=10)
        return Measurement(
            {
                "kl": kl(posterior, model.prior()),
                f"mutual_information.lower.n{len(self.test)}": information.lower,
                f"mutual_information.upper.n{len(self.test)}": information.upper,
                f"active_units.above{threshold}": active_units(posterior.mean, threshold=threshold),
            },
            pictures=pictures,
        )

    def measure_features(self, model: Any, context: Context) -> Measurement:
        if self.truth is not None:
            raise MissingCapability("no feature network is trained on this variant, whose truth is known")
        x = context.draws(self._num_samples)
        k = self.card.protocol["neighbours_k"]
        judge = load_judge("binary_cnn", weights=ENCODERS.get(self.name, self.name))
        found = feature_distances(judge, x, self.train, self.images.test, k=k)
        shown = x[:SHOWN]
        neighbours = self.images.train[nearest_by_hamming(shown, self.images.train).index]
        picture = grid([shown, neighbours], self.layout, columns=8)
        return Measurement(found, pictures={"samples": picture})

    def measure_mmd2(self, model: Any, context: Context) -> Measurement:
        num, bandwidth = self._num_samples, self.card.protocol["mmd_bandwidth"]
        y = self.truth.sample(num, rng=self.rng("test")) if self.truth is not None else self.images.test[:num]
        x, kernel = context.draws(num), exp_hamming(bandwidth)
        key = f"mmd2.exp_hamming.bw{bandwidth}.n{num}"
        null = permutation_null(
            x, y, kernel, num_permutations=200, rng=_cpu(context.rng)
        )
        note = f"200 relabellings, whose p is {null.p_value:.3g}"
        return Measurement({
            key: mmd2(x, y, kernel), f"{key}.null_sd": Estimate(value=null.sd, kind="consistent", note=note)
        })  # fmt: skip

    def measure_nn_ratio(self, model: Any, context: Context) -> Measurement:
        if self.truth is not None:
            raise MissingCapability("training draws are unlimited here: there is nothing to memorise")
        num, train = self._num_samples, self.images.train
        # a memoriser of grey images gives fresh binarizations of them, which lie off their means like any others
        copies = self.train[: len(self.images.test)] if self.images.dynamic else train[:num]
        held_out = nearest_by_hamming(self.images.test[:num], train).distance
        found = {}
        for key, x in ((f"nn_ratio.n{num}", context.draws(num)), ("nn_ratio.memoriser", copies)):
            distance = nearest_by_hamming(x, train).distance
            rng = _cpu(context.rng) if x is not copies else self.rng("memoriser")
            found[key] = nn_ratio(distance, held_out, num_bootstraps=200, rng=rng)
        return Measurement(found)

    def measure_probe_accuracy(self, model: Any, context: Context) -> Measurement:
        images = self.images if self.truth is None else None
        if images is None or images.train_classes is None or images.test_classes is None:
            raise MissingCapability("these images have no classes")
        num, rng, found = self.budget["num_probe"], _cpu(context.rng), {}
        train, classes = self.train[:num], images.train_classes[:num]
        test, test_classes = self.images.test[:num], images.test_classes[:num]
        pairs = {"": (_features(model, train, context), _features(model, test, context)), ".pixels": (train, test)}
        for name, (of_train, of_test) in pairs.items():
            found[f"probe_accuracy{name}.n{len(train)}"] = probe_accuracy(of_train, classes, of_test, test_classes)
            for per_class in self.card.protocol["few_labels"]:
                if int(classes.bincount(minlength=images.num_classes).min()) < per_class:
                    continue  # the labels do not suffice
                few = few_label_accuracy(
                    of_train,
                    classes,
                    of_test,
                    test_classes,
                    per_class=per_class,
                    num_draws=self.budget["num_few_draws"],
                    rng=rng if not name else self.rng("few", per_class),
                )
                found[f"probe_accuracy{name}.{per_class}perclass"] = few
        return Measurement(found)

    def measure_reconstruction(self, model: Any, context: Context) -> Measurement:
        x = self.test
        p = torch.cat([model.reconstruct(block.to(context.rng.device)).cpu() for block in x.split(500)]).double()
        p = p.clamp(1e-6, 1 - 1e-6)  # a certain pixel that is wrong costs 14 nats, not infinitely many
        nats = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)
        wrong = ((p > 0.5) != (x > 0.5)).double().mean(1)
        found = {
            name: Estimate(value=float(one.mean()), stderr=float(one.std()) / len(x) ** 0.5, n=len(x))
            for name, one in (("reconstruction.nats", nats), ("reconstruction.wrong_bits", wrong))
        }
        picture = grid([x[:SHOWN], p[:SHOWN].float()], self.layout, columns=8)
        return Measurement(found, pictures={"reconstructions": picture})

    def measure_ood_auc(self, model: Any, context: Context) -> Measurement:
        if self.truth is not None:
            raise MissingCapability("the truth is known here: the excess over it says more")
        num = self.budget["score_importance"]
        inside = score(model, self.test, num, context.rng)
        found = {}
        for name, x in self._outliers().items():
            found[f"ood_auc.{name}"] = auc(inside, score(model, x, num, context.rng))
        return Measurement(found)

    @property
    def _num_samples(self) -> int:
        """Samples that are compared with as many test images and, for the floors, training images."""
        num: int = self.budget["num_samples"]
        return num if self.truth is not None else min(num, len(self.images.test), len(self.images.train))

    def _outliers(self) -> dict[str, Tensor]:
        num = len(self.test)
        sets = {
            "bars": bars_and_stripes(num, self.layout, rng=self.rng("bars")),
            "mirrored": mirrored(self.test, self.layout),
        }
        if self.name in OF_DIGITS:
            sets["silhouettes"] = load("caltech", lambda path: fetch(file_of(self.card, path))).test[:num]
        return sets

    def _interpolation(self, model: Any, means: Tensor) -> Tensor:
        """Ten rows from the latent of one test image to that of another, (100, D) means of pixels."""
        steps = torch.linspace(0, 1, 10, device=means.device)[None, :, None]
        ends = means[:20].reshape(10, 2, 1, -1)
        z = (1 - steps) * ends[:, 0] + steps * ends[:, 1]  # (10, 10, Z)
        decoded: Tensor = model.decode(z.reshape(-1, means.shape[1]))
        return decoded.cpu()


@cache
def _truth(name: str) -> ExactImages:
    return EXACT[name]()


def _cpu(rng: Generator) -> Generator:
    return torch.Generator().manual_seed(derive_seed("dynamic_mnist/cpu", rng.initial_seed()))


def _features(model: Any, x: Tensor, context: Context) -> Tensor:
    return torch.cat([model.encode(block.to(context.rng.device)).cpu() for block in x.split(1000)])


