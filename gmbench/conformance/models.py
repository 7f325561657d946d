"""The checks of a model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmbench.conformance.checks import Skipped, require
from gmbench.conformance.global_state import untouched_global_randomness
from gmbench.conformance.latents import (
    decoded_means_are_probabilities,
    deterministic_answers,
    features_have_their_shape,
    harmonium_takes_what_ascends,
    latents_fit_together,
    reconstructions_are_probabilities,
)
from gmbench.conformance.tokens import (
    first_tokens_are_sampled_as_scored,
    next_tokens_sum_to_one,
    pseudo_log_probs_leave_room_for_other_words,
    sequences_come_back,
    token_log_prob_looks_back_only,
    token_log_probs_make_up_log_prob,
)
from gmbench.errors import MissingCapability
from gmbench.model import CAPABILITIES, Config, Data, Model, offers
from gmbench.plan import Plan, Request, make_config, make_plan
from gmbench.plugin import ModelCard, TaskCard
from gmbench.randomness import stream
from gmbench.registry import Plugin, Registry
from gmbench.runner import data_for, make_task, new_model
from gmbench.samplers.target import FunctionTarget
from gmbench.spaces import KINDS, BinaryVector
from gmbench.training import Gradient, Interrupted, Trainer

NUM = 64
MAX_ENUMERATED_BITS = 16


class ModelUnderTest:
    """A model with the smallest smoke run it applies to; what is fitted is fitted once."""

    def __init__(self, plugin: Plugin, registry: Registry) -> None:
        assert isinstance(plugin.card, ModelCard)
        self.plugin, self.registry, self.card = plugin, registry, plugin.card
        tasks = registry.tasks.values()
        self.applicable = [
            task for task in tasks if isinstance(task.card, TaskCard) and self.card.applies_to(task.card)
        ]

    @cached_property
    def model_class(self) -> type[Model]:
        loaded: type[Model] = self.plugin.load()
        return loaded

    @cached_property
    def plan(self) -> Plan:
        """The smoke run with the smallest space; where there is one that starts from nothing, the smallest of those.

        A card that names inputs may have a preset without: that is what is checked then.
        """
        chosen: list[tuple[tuple[bool, int], Request]] = []
        for task in self.applicable:
            assert isinstance(task.card, TaskCard)
            model, inputs = self._start(task.card)
            for variant in task.card.variants:
                if "smoke" in variant.tracks and not task.card.argument:
                    # Resolved, since a path with no separator in it would be taken for a name.
                    request = Request(str(task.folder.resolve()), model, variant.name, "smoke")
                    space = task.load()(task.card, variant.factors, "smoke").space
                    if not chosen or (inputs, space.size) < chosen[0][0]:
                        chosen = [((inputs, space.size), request)]
        if not chosen:
            raise Skipped("no task that was found has a smoke track and a space that the model accepts")
        return make_plan(chosen[0][1], self.registry)

    def _start(self, task: TaskCard) -> tuple[str, bool]:
        """What to ask for so that the model starts from nothing on the task; whether it still starts from others."""
        path = str(self.plugin.folder.resolve())
        allowed = (name for name, one in self.card.presets.items() if not one.tasks or task.name in one.tasks)
        free = (name for name in ("", *allowed) if not self.card.inputs_for(task.name, name))
        preset = next(free, None)
        return (path, True) if preset is None else (f"{path}+{preset}" if preset else path, False)

    @cached_property
    def data(self) -> Data:
        return data_for(self.plan, make_task(self.plan))

    def new(self) -> Model:
        """A model that is not fitted, with the run's initialization."""
        if self.plan.inputs:
            raise Skipped("the model starts from the finished runs of others, and has no preset with inputs = {}")
        return new_model(self.plan)

    @cached_property
    def fitted(self) -> Model:
        model = self.new()
        Trainer().fit(model, self.data)
        return model

    @property
    def points(self) -> Tensor:
        return self.data.validation[:NUM].clone()  # a model that writes into one check's points spoils no other

    def ask(self, capability: str) -> Callable[..., Any]:
        """The method of a capability of the fitted model; skips where it has none."""
        if not offers(self.fitted, capability):
            raise Skipped(f"the model has no {capability}")
        method: Callable[..., Any] = getattr(self.fitted, capability)
        return method


def entry_is_a_model(m: ModelUnderTest) -> None:
    loaded = m.model_class
    require(isinstance(loaded, type) and issubclass(loaded, Model), f"{m.card.entry} is not a subclass of Model")
    require(issubclass(loaded.Config, Config), f"{m.card.entry}.Config is not a subclass of gmbench.model.Config")


def accepts_known_spaces(m: ModelUnderTest) -> None:
    unknown = sorted(set(m.card.accepts) - set(KINDS))
    require(not unknown, f"accepts unknown spaces: {', '.join(unknown)}; known: {', '.join(sorted(KINDS))}")


def config_has_no_defaults(m: ModelUnderTest) -> None:
    fields = m.model_class.Config.model_fields
    given = [name for name, one in fields.items() if not one.is_required()]
    require(not given, f"defaults belong into the card, and Config gives {', '.join(given)} one")


def config_is_documented(m: ModelUnderTest) -> None:
    silent = [name for name, one in m.model_class.Config.model_fields.items() if not one.description]
    require(not silent, f"fields of Config without a docstring: {', '.join(silent)}")


def card_config_is_complete(m: ModelUnderTest) -> None:
    for task in m.applicable:
        assert isinstance(task.card, TaskCard)
        for track in sorted({track for variant in task.card.variants for track in variant.tracks}):
            presets = m.card.presets.items()
            for preset in ("", *(name for name, one in presets if not one.tasks or task.card.name in one.tasks)):
                values = m.card.resolve(task.card.name, track, preset)
                try:
                    make_config(m.model_class, values, m.card)
                except Exception as error:
                    name = f"{m.card.name}+{preset}" if preset else m.card.name
                    require(False, f"{name} on {task.card.name}, track {track}: {error}")


def capabilities_are_declared(m: ModelUnderTest) -> None:
    declared = set(m.card.capabilities)
    unknown = sorted(declared - set(CAPABILITIES))
    require(not unknown, f"unknown capabilities: {', '.join(unknown)}; known: {', '.join(sorted(CAPABILITIES))}")
    model = m.new()
    offered = {name for name in CAPABILITIES if offers(model, name)}
    require(declared <= offered, f"declared but not offered: {', '.join(sorted(declared - offered))}")
    require(offered <= declared, f"offered but not declared: {', '.join(sorted(offered - declared))}")


def fits(m: ModelUnderTest) -> None:
    assert m.fitted is not None


def samples_are_points(m: ModelUnderTest) -> None:
    sample = m.ask("sample")
    for num in (1, NUM):
        x = sample(num, rng=stream("check", num))
        require(len(x) == num, f"sample({num}) gave {len(x)} points")
        expected = m.data.validation.dtype
        require(x.dtype == expected, f"samples are {x.dtype}, and the data are {expected}")
        m.data.space.validate(x, "samples")


def same_stream_gives_same_samples(m: ModelUnderTest) -> None:
    sample = m.ask("sample")
    first, again, other = (sample(NUM, rng=stream("check", name)) for name in ("a", "a", "b"))
    require(torch.equal(first, again), "the same generator state gave different samples")
    varied = bool((first != first[0]).any())
    require(not varied or not torch.equal(first, other), "another generator state gave the same samples")


def leaves_points_alone(m: ModelUnderTest) -> None:
    """Tasks hand the same test points to every capability, and in one process to every run."""
    points = m.points
    _answers(m.fitted, points)
    require(torch.equal(points, m.points), "log_prob or energy changed the points that it was given")


def log_prob_has_its_shape(m: ModelUnderTest) -> None:
    _is_batch_of_numbers(m.ask("log_prob")(m.points, rng=stream("check")), len(m.points), "log_prob")


def energy_has_its_shape(m: ModelUnderTest) -> None:
    _is_batch_of_numbers(m.ask("energy")(m.points), len(m.points), "energy")


def couplings_are_symmetric(m: ModelUnderTest) -> None:
    J = m.ask("couplings")()
    dim = m.points.shape[1]
    require(tuple(J.shape) == (dim, dim), f"couplings have shape {tuple(J.shape)} where {(dim, dim)} is expected")
    require(torch.equal(J, J.T) and not bool(J.diagonal().any()), "couplings are not symmetric with a zero diagonal")


def sampler_keeps_points_valid(m: ModelUnderTest) -> None:
    kernel, energy = m.ask("sampler")(), m.ask("energy")
    with torch.no_grad():
        moved = kernel.step(m.points.clone(), FunctionTarget(lambda x: -energy(x)), rng=stream("check"))
    require(moved.x.shape == m.points.shape, f"the sampler made {tuple(moved.x.shape)} of {tuple(m.points.shape)}")
    m.data.space.validate(moved.x, "the sampler's states")
    require(0 <= float(moved.accept_rate) <= 1, f"acceptance rate {float(moved.accept_rate)}")


def uses_no_global_randomness(m: ModelUnderTest) -> None:
    with torch.no_grad(), untouched_global_randomness("a capability"):
        for name, answer in _answers(m.fitted, m.points).items():
            assert name and answer is not None


def survives_saving(m: ModelUnderTest) -> None:
    state = {name: tensor.clone() for name, tensor in m.fitted.state_dict().items()}
    again = m.new()
    again.load_state_dict(state)
    if m.data.truth is not None:
        again.stages(m.data)  # a reference row that holds on to the truth is handed it again
    again.eval()
    _are_equal(_answers(m.fitted, m.points), _answers(again, m.points), "after saving and loading")


def resumes_exactly(m: ModelUnderTest) -> None:
    lengths = [stage.num_steps for stage in m.new().stages(m.data) if isinstance(stage, Gradient)]
    if not lengths:
        raise Skipped("the model has no gradient stage")
    stop_after, steps = max(1, sum(lengths) // 2), 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Interrupted):
            Trainer(folder=Path(folder), should_stop=should_stop).fit(m.new(), m.data)
        resumed = m.new()
        Trainer(folder=Path(folder)).fit(resumed, m.data)
    _are_equal(dict(m.fitted.state_dict()), dict(resumed.state_dict()), f"after an interruption at step {stop_after}")
    _are_equal(_answers(m.fitted, m.points), _answers(resumed, m.points), f"after an interruption at step {stop_after}")


def probabilities_sum_to_one_at_most(m: ModelUnderTest) -> None:
    total = float(_exact_log_prob(m).exp().sum())
    require(total <= 1 + 1e-4, f"the probabilities of all states sum to {total:.6f}")


def samples_agree_with_log_prob(m: ModelUnderTest) -> None:
    sample = m.ask("sample")
    p = _exact_log_prob(m).exp()
    require(float(p.sum()) > 0.99, f"probabilities sum to {float(p.sum()):.4f}, so they cannot be the sampler's")
    num = 4000
    x = sample(num, rng=stream("check/agreement"))
    index = (x.long() * (1 << torch.arange(x.shape[1]))).sum(1)
    # Twenty cells of states of like probability, from the commonest to the rarest, of about equal mass.
    order = p.argsort(descending=True)
    cell = torch.empty_like(order)
    cell[order] = ((p[order].cumsum(0) - p[order] / 2) * 20).long().clamp(0, 19)
    expected = torch.zeros(20, dtype=p.dtype).index_add_(0, cell, p) * num
    counts = cell[index].bincount(minlength=20)
    full = expected > 5
    degrees = max(int(full.sum()) - 1, 1)
    chi_square = float(((counts - expected).square() / expected)[full].sum())
    bound = degrees + 7 * (2 * degrees) ** 0.5
    require(chi_square < bound, f"samples do not follow log_prob: chi-square {chi_square:.0f}, far above {degrees}")


def _exact_log_prob(m: ModelUnderTest) -> Tensor:
    """log p of every state (2**D,) float64, state number i having the bits of i, lowest first."""
    log_prob, space = m.ask("log_prob"), m.data.space
    kind = m.fitted.likelihood.kind  # type: ignore[union-attr]
    if kind != "exact":
        raise Skipped(f"log_prob is of the kind {kind}")
    if not isinstance(space, BinaryVector) or space.dim > MAX_ENUMERATED_BITS:
        raise Skipped("the space is too large to enumerate")
    states = (torch.arange(1 << space.dim)[:, None] >> torch.arange(space.dim)) & 1
    with torch.no_grad():
        return torch.cat([log_prob(block.float(), rng=stream("check")).double() for block in torch.split(states, 4096)])


def _answers(model: Any, points: Tensor) -> dict[str, Tensor]:
    """What every capability of a fitted model answers, on fixed streams."""
    asked: dict[str, Callable[[], Tensor]] = {
        "sample": lambda: model.sample(NUM, rng=stream("check")),
        "log_prob": lambda: model.log_prob(points, rng=stream("check")),
        "energy": lambda: model.energy(points),
        "token_log_prob": lambda: model.token_log_prob(points),
        "attention": lambda: model.attention(points),
        "couplings": lambda: model.couplings(),
    }
    answers = {}
    for name, ask in asked.items():
        if offers(model, name):
            try:
                with torch.no_grad():
                    answers[name] = ask()
            except MissingCapability:
                continue
    with torch.no_grad():
        return answers | deterministic_answers(model, points)


def _are_equal(expected: dict[str, Tensor], found: dict[str, Tensor], when: str) -> None:
    for name, tensor in expected.items():
        require(name in found and torch.equal(tensor, found[name]), f"{name} is not the same {when}")


def _is_batch_of_numbers(values: Tensor, num: int, what: str) -> None:
    require(tuple(values.shape) == (num,), f"{what} has shape {tuple(values.shape)} where ({num},) is expected")
    require(values.is_floating_point(), f"{what} is of {values.dtype}")
    require(not bool(values.isnan().any()), f"{what} is NaN somewhere")


CHECKS: Sequence[Callable[[ModelUnderTest], None]] = (
    accepts_known_spaces,
    entry_is_a_model,
    config_has_no_defaults,
    config_is_documented,
    card_config_is_complete,
    fits,
    capabilities_are_declared,
    samples_are_points,
    same_stream_gives_same_samples,
    leaves_points_alone,
    log_prob_has_its_shape,
    energy_has_its_shape,
    couplings_are_symmetric,
    sampler_keeps_points_valid,
    features_have_their_shape,
    reconstructions_are_probabilities,
    latents_fit_together,
    decoded_means_are_probabilities,
    harmonium_takes_what_ascends,
    sequences_come_back,
    token_log_probs_make_up_log_prob,
    token_log_prob_looks_back_only,
    next_tokens_sum_to_one,
    pseudo_log_probs_leave_room_for_other_words,
    first_tokens_are_sampled_as_scored,
    uses_no_global_randomness,
    survives_saving,
    resumes_exactly,
    probabilities_sum_to_one_at_most,
    samples_agree_with_log_prob,
)
PREREQUISITES = frozenset((entry_is_a_model, card_config_is_complete, fits))
