"""The checks of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from gmbench.conformance.checks import Skipped, require
from gmbench.conformance.global_state import untouched_global_randomness
from gmbench.data.local import status
from gmbench.errors import UserError
from gmbench.estimate import Estimate
from gmbench.foreign import adapt
from gmbench.measuring import Measured, measure
from gmbench.model import CAPABILITIES, Data
from gmbench.plugin import TaskCard, Variant
from gmbench.published import read_published
from gmbench.randomness import stream
from gmbench.registry import Plugin
from gmbench.spaces import KINDS
from gmbench.task import Task

NUM = 64


class TaskUnderTest:
    """A task, and its smallest smoke variant, on which things are measured."""

    def __init__(self, plugin: Plugin) -> None:
        assert isinstance(plugin.card, TaskCard)
        self.plugin, self.card = plugin, plugin.card

    @cached_property
    def task_class(self) -> type[Task]:
        loaded: type[Task] = self.plugin.load()
        return loaded

    def make(self, variant: Variant, track: str) -> Task:
        return self.task_class(self.card, variant.factors, track)

    @cached_property
    def smallest(self) -> Task:
        tasks = [self.make(variant, "smoke") for variant in self.card.variants if "smoke" in variant.tracks]
        if not tasks:
            raise Skipped("no variant has the track smoke")
        chosen = min(tasks, key=lambda task: task.space.size)
        for file in self.card.data:
            if file.needed_by(chosen.variant) and status(file) == "missing":
                raise Skipped(f"{file.path} is missing: put it into the folder that $GMBENCH_DATA names")
        return chosen

    @cached_property
    def data(self) -> Data:
        return self.smallest.data(0)

    @cached_property
    def measured_truth(self) -> Measured:
        """Every metric of the truth."""
        if self.data.truth is None:
            raise Skipped("the truth is not known")
        return measure(self.smallest, adapt(self.data.truth, self.smallest.space), 0)


def entry_is_a_task(t: TaskUnderTest) -> None:
    loaded = t.task_class
    require(isinstance(loaded, type) and issubclass(loaded, Task), f"{t.card.entry} is not a subclass of Task")


def space_is_known(t: TaskUnderTest) -> None:
    require(t.card.space in KINDS, f"unknown space {t.card.space!r}; known: {', '.join(sorted(KINDS))}")


def every_metric_has_its_method(t: TaskUnderTest) -> None:
    methods = {name.removeprefix("measure_") for name in dir(t.task_class) if name.startswith("measure_")}
    metrics = set(t.card.metrics)
    require(metrics <= methods, f"metrics without a method measure_…: {', '.join(sorted(metrics - methods))}")
    require(methods <= metrics, f"methods of metrics that the card lacks: {', '.join(sorted(methods - metrics))}")


def metrics_require_known_capabilities(t: TaskUnderTest) -> None:
    for name, metric in t.card.metrics.items():
        unknown = {one for needed in metric.requires for one in needed.split("|")} - set(CAPABILITIES)
        require(not unknown, f"metric {name} requires unknown capabilities: {', '.join(sorted(unknown))}")


def default_variant_has_default_track(t: TaskUnderTest) -> None:
    tracks = t.card.variant(t.card.default_variant).tracks
    require(t.card.default_track in tracks, f"the default variant lacks the default track {t.card.default_track}")


def variants_name_the_same_factors(t: TaskUnderTest) -> None:
    names = [variant.name for variant in t.card.variants]
    require(len(set(names)) == len(names), "a variant is listed twice")
    for variant in t.card.variants:
        require(t.card.variant(variant.name) == variant, f"the name {variant.name!r} finds another variant")


def published_numbers_are_readable(t: TaskUnderTest) -> None:
    found = read_published(t.plugin.folder, t.card)
    if not (found.row or found.left_out):
        raise Skipped("there are none")
    for model, variant in [(row.model, row.variant) for rows in (found.row, found.left_out) for row in rows]:
        try:
            named = t.card.variant(variant).name
        except UserError as error:
            require(False, f"row {model}: {error}")
        else:
            require(named == variant, f"row {model}: its variant is {named} in full, which is what a table is found by")


def every_variant_constructs(t: TaskUnderTest) -> None:
    for variant in t.card.variants:
        for track in variant.tracks:
            space = t.make(variant, track).space
            require(
                getattr(space, "kind", None) == t.card.space,
                f"{variant.name}, track {track}: the space is {space!r}, and the card says {t.card.space!r}",
            )


def data_are_points(t: TaskUnderTest) -> None:
    data, space = t.data, t.smallest.space
    require(data.space == space, "data.space is not the task's space")
    if data.train is not None:
        space.validate(data.train, "training points")
    space.validate(data.validation, "validation points")
    drawn = data.draw(NUM, stream("check"))
    require(len(drawn) == NUM, f"draw({NUM}) gave {len(drawn)} points")
    space.validate(drawn, "drawn points")


def data_follow_the_seed(t: TaskUnderTest) -> None:
    data = [t.smallest.data(seed) for seed in (0, 0, 1)]
    pools = [one.draw(256, stream("check")) if one.train is None else one.train for one in data]
    require(torch.equal(pools[0], pools[1]), "data(0) gives different data the second time")
    if t.card.data or t.card.argument:
        return  # real data are the same for every seed
    if data[0].train is not None:
        require(not torch.equal(pools[0], pools[2]), "data(1) is data(0)")
    again = data[1].draw(NUM, stream("check", 1))
    require(torch.equal(data[0].draw(NUM, stream("check", 1)), again), "draw depends on more than its generator")


def validation_is_apart(t: TaskUnderTest) -> None:
    train, validation = t.data.train, t.data.validation
    if train is None:
        raise Skipped("the draws are unlimited")
    num = min(len(train), len(validation))
    for part in (train[:num], train[-num:]):
        require(not torch.equal(part, validation[:num]), "the validation points are training points")


def uses_no_global_randomness(t: TaskUnderTest) -> None:
    with untouched_global_randomness("the task"):
        t.smallest.data(0).draw(NUM, stream("check"))
        assert t.measured_truth is not None


def truth_can_be_measured(t: TaskUnderTest) -> None:
    found = t.measured_truth.merged
    require(found.estimates, "no metric could be measured on the truth")
    if t.card.headline not in t.measured_truth.unavailable:
        require(found.headline in found.estimates, f"the headline {found.headline!r} is not among what was measured")


def truth_gets_the_null(t: TaskUnderTest) -> None:
    nulls = {name: metric.null for name, metric in t.card.metrics.items() if metric.null is not None}
    if not nulls:
        raise Skipped("no metric of the card states a null")
    for key, estimate in t.measured_truth.merged.estimates.items():
        null = nulls.get(key.partition(".")[0])
        if null is not None and not key.endswith(".null"):
            require(_near(estimate, null), f"{key} of the truth is {estimate.value:.4g}, and its null is {null:g}")


def measuring_repeats(t: TaskUnderTest) -> None:
    first = t.measured_truth.merged.estimates
    again = measure(t.smallest, adapt(t.data.truth, t.smallest.space), 0).merged.estimates
    changed = [key for key in first if again.get(key) != first[key]]
    require(not changed, f"measured twice with one seed, these differ: {', '.join(changed)}")


def _near(estimate: Estimate, null: float) -> bool:
    if math.isinf(null) or math.isinf(estimate.value):
        return estimate.value == null
    return abs(estimate.value - null) <= 5 * (estimate.stderr or 0.0) + 1e-5


CHECKS: Sequence[Callable[[TaskUnderTest], None]] = (
    space_is_known,
    entry_is_a_task,
    every_metric_has_its_method,
    metrics_require_known_capabilities,
    default_variant_has_default_track,
    variants_name_the_same_factors,
    published_numbers_are_readable,
    every_variant_constructs,
    data_are_points,
    data_follow_the_seed,
    validation_is_apart,
    uses_no_global_randomness,
    truth_can_be_measured,
    truth_gets_the_null,
    measuring_repeats,
)
PREREQUISITES = frozenset((entry_is_a_task, every_variant_constructs))
