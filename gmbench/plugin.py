"""Plugins: folders with a `plugin.toml`. Reading and listing manifests executes none of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gmbench.errors import UserError, nearest
from gmbench.estimate import Direction

MANIFEST = "plugin.toml"
TRACKS = ("smoke", "small", "medium", "paper")
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Track = Literal["smoke", "small", "medium", "paper"]
Values = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class Paper(_Strict):
    """The source of a model or a task."""

    title: str
    authors: list[str]
    year: int
    arxiv: str = ""
    url: str = ""


class TrackBudget(_Strict):
    """A task's side of a track: what is measured with how much, and when a run counts as slow (a flag only)."""

    summary: str
    ceiling_minutes: float
    measure: Values = {}


class Variant(_Strict):
    """One setting of a task, written as named factors: `lattice=10x10,sigma=0.1`.

    `requires`: capabilities that its headline needs, where these are others than the metric says.
    """

    name: str
    tracks: list[Track]
    requires: list[str] = []

    @property
    def factors(self) -> dict[str, str]:
        return parse_factors(self.name)


class MetricCard(_Strict):
    """What a task says of one of its metrics.

    `requires`: capabilities; `a|b` means that either will do. `null`: the value that the truth gets, where it has one.
    `beside`: whether it has a column in the main tables, by the headline's estimator.
    """

    summary: str
    direction: Direction | Literal["none"] = "lower"
    unit: str = ""
    requires: list[str] = []
    version: int = 1
    headline: bool = False
    beside: bool = False
    null: float | None = None


_SHA256 = r"^[0-9a-f]{64}$"


class DataFile(_Strict):
    """A file of real data, found under $GMBENCH_DATA or downloaded.

    `unpacked_sha256`: of what is in a file packed by gzip. It serves as well, at the path without `.gz`; and it is what
    the address gives. `variants`: factors such as `data=mnist` that a variant must have one of to need the file; every
    variant if empty.
    """

    path: str
    sha256: Annotated[str, Field(pattern=_SHA256)]
    unpacked_sha256: Annotated[str, Field(pattern=rf"{_SHA256}|^$")] = ""
    url: str = ""
    licence: str = ""
    variants: list[str] = []

    def needed_by(self, factors: Mapping[str, str]) -> bool:
        """Whether the variant with these factors needs the file."""
        return not self.variants or any(parse_factors(one).items() <= factors.items() for one in self.variants)

    @field_validator("path")
    @classmethod
    def _stays_in_the_folder(cls, path: str) -> str:
        # A manifest is read without trust, and `data fetch` writes where it says.
        return _inside(path, "the data folder")

    @model_validator(mode="after")
    def _is_packed(self) -> Self:
        if self.unpacked_sha256 and not self.path.endswith(".gz"):
            raise ValueError(f"{self.path} has an unpacked_sha256, and is not packed: its name does not end in .gz")
        return self

    @property
    def forms(self) -> dict[str, str]:
        """The paths of the forms in which the file serves, each with its SHA-256; what the address gives is last."""
        unpacked = {self.path.removesuffix(".gz"): self.unpacked_sha256} if self.unpacked_sha256 else {}
        return {self.path: self.sha256, **unpacked}


class OwnFile(DataFile):
    """A file of the user's, read where it lies, `place`; `path` is what the run's identity calls it, wherever it is."""

    place: Path


class InputCard(_Strict):
    """A finished run that this model, the child, starts from: where nothing else is said, on all that the child is on.

    `variant`: the default one if the task is not the child's. `seed`: a number makes one run serve all seeds of the
    child, as one pre-trained checkpoint serves many fine-tunings. `config`: over the card config of the run's own
    model; `tracks`: more of it, where the run is on that track.
    """

    model: str
    task: str = ""
    variant: str = ""
    track: Track | Literal[""] = ""
    seed: Annotated[int, Field(ge=0)] | None = None
    config: Values = {}
    tracks: dict[Track, Values] = {}


class Preset(_Strict):
    """A named departure from a model's card config, run as `--model name+preset`; `inputs` where they depart too."""

    summary: str
    config: Values
    tasks: list[str] = []
    inputs: dict[str, InputCard] | None = None


class PerTask(_Strict):
    """A model's config on one task, over its general one; its inputs there, where they are not the general ones."""

    config: Values = {}
    tracks: dict[Track, Values] = {}
    inputs: dict[str, InputCard] | None = None


class WeightsFile(_Strict):
    """Trained weights that a judge ships, and the command that made them."""

    file: Annotated[str, Field(pattern=r"\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    command: str
    summary: str

    @field_validator("file")
    @classmethod
    def _stays_in_the_folder(cls, file: str) -> str:
        return _inside(file, "the plugin's folder")


class Card(_Strict):
    """What every manifest says."""

    kind: str
    name: Name
    version: Annotated[int, Field(ge=1)]
    summary: str
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    licence: str
    paper: Paper | None = None
    notes: str = ""


class ModelCard(Card):
    """The card of a model: what it accepts and can do, its config per task and track, and how that was chosen.

    `argument`: the hyper-parameter that `--model name:value` sets, where there is one.
    """

    kind: Literal["model"]
    family: str
    role: Literal["model", "reference"] = "model"
    accepts: list[str]
    capabilities: list[str]
    only_tasks: list[str] = []
    argument: str = ""
    tuning: str = ""
    config: Values = {}
    tracks: dict[Track, Values] = {}
    tasks: dict[str, PerTask] = {}
    presets: dict[Name, Preset] = {}
    inputs: dict[str, InputCard] = {}

    def applies_to(self, task: TaskCard) -> bool:
        """Whether the model can be fitted to the task."""
        return task.space in self.accepts and (not self.only_tasks or task.name in self.only_tasks)

    def argument_of(self, model: str) -> Values:
        """The hyper-parameter that `name:value` sets, with its value; nothing where `model` is not of that form."""
        name, colon, value = model.partition(":")
        if not (self.argument and colon and name == self.name):
            return {}
        if not value:
            raise UserError(f"--model {model} says no {self.argument}: {model}{self.argument.upper()}")
        return {self.argument: value}

    def preset_of(self, model: str, task: TaskCard | None = None) -> str:
        """The preset in `name+preset`, or ""; UserError where the card lacks it, or where it is not for `task`."""
        if self.argument_of(model):
            return ""
        _, plus, preset = model.rpartition("/")[2].partition("+")
        if not plus:
            return ""
        if preset not in self.presets:
            raise UserError(f"model {self.name} has no preset {preset!r}: {nearest(preset, self.presets)}")
        tasks = self.presets[preset].tasks
        if task and tasks and task.name not in tasks:
            raise UserError(f"preset {self.name}+{preset} is for {', '.join(tasks)}, not for {task.name}")
        return preset

    def resolve(self, task: str, track: str, preset: str = "") -> Values:
        """The card's own config: general, then the task's, the preset's, the track's, and the task's on the track."""
        chosen: Any = track
        per_task = self.tasks.get(task, PerTask())
        layers = [self.config, per_task.config]
        if preset:
            layers.append(self.presets[preset].config)
        layers += [self.tracks.get(chosen, {}), per_task.tracks.get(chosen, {})]
        return {name: value for layer in layers for name, value in layer.items()}

    def inputs_for(self, task: str, preset: str = "") -> dict[str, InputCard]:
        """The runs that the model starts from: those the preset names, or else the task's, or else the card's.

        An empty table, `inputs = {}`, is one too: that of a start from nothing.
        """
        of_preset = self.presets[preset].inputs if preset else None
        of_task = self.tasks.get(task, PerTask()).inputs
        return next((named for named in (of_preset, of_task) if named is not None), self.inputs)


class TaskCard(Card):
    """The card of a task: its protocol, metrics, variants and tracks.

    `argument`: what `--task name:PATH` names, where the task is about a file of the user's: a run needs one, and the
    factor of that name says which it is.
    """

    kind: Literal["task"]
    modality: str
    space: str
    default_variant: str
    default_track: Track
    protocol: Values
    metrics: dict[str, MetricCard]
    variants: list[Variant]
    tracks: dict[Track, TrackBudget]
    data: list[DataFile] = []
    published: str = ""
    argument: str = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [variant.name for variant in self.variants]
        if self.default_variant not in names:
            raise ValueError(f"default_variant {self.default_variant!r} is not among the variants")
        if sum(metric.headline for metric in self.metrics.values()) != 1:
            raise ValueError("exactly one metric must be the headline")
        if self.argument and (self.data or any(self.argument in variant.factors for variant in self.variants)):
            raise ValueError(f"argument {self.argument!r}: the user's file is the only data, and makes the factor")
        for variant in self.variants:
            if missing := set(variant.tracks) - set(self.tracks):
                raise ValueError(f"variant {variant.name!r} names tracks without a budget: {sorted(missing)}")
        for file in self.data:
            for one in file.variants:
                if not any(parse_factors(one).items() <= variant.factors.items() for variant in self.variants):
                    raise ValueError(f"file {file.path} is for {one!r}, which no variant has")
        return self

    @property
    def headline(self) -> str:
        return next(name for name, metric in self.metrics.items() if metric.headline)

    def require_argument(self) -> None:
        """UserError where the task is about a file of the user's, and this card knows of none."""
        if self.argument and not self.data:
            raise UserError(f"{self.name} is about a {self.argument} of your own: --task {self.name}:PATH")

    def variant(self, text: str) -> Variant:
        """The variant that `text` names; factors left out are the default's, or those of the only one that fits."""
        given = parse_factors(text)
        default = parse_factors(self.default_variant)
        if unknown := sorted(set(given) - {f for v in self.variants for f in v.factors}):
            raise UserError(
                f"task {self.name} has no variant factor {unknown[0]!r}: "
                + nearest(unknown[0], {f for v in self.variants for f in v.factors})
            )
        exact = [v for v in self.variants if v.factors == given]
        filled = [v for v in self.variants if v.factors == default | given]
        containing = [v for v in self.variants if given.items() <= v.factors.items()]
        if found := exact + filled + (containing if len(containing) == 1 else []):
            return found[0]
        if containing:
            listed = "; ".join(v.name for v in containing)
            raise UserError(f"variant {text!r} of task {self.name} names {len(containing)} variants: {listed}")
        hint = nearest(text, names := [v.name for v in self.variants])
        more = "" if "known" in hint else f" 'gmbench show {self.name}' names all {len(names)}"
        raise UserError(f"task {self.name} has no variant {text!r}: {hint}{more}")

    def choose_track(self, track: str, variant: Variant) -> str:
        """The track that is asked for, or the task's default one, if the variant has it."""
        track = track or (self.default_track if self.default_track in variant.tracks else variant.tracks[0])
        if track not in TRACKS:
            raise UserError(f"no track is named {track!r}: {nearest(track, TRACKS)}")
        if track not in variant.tracks:
            raise UserError(f"{self.name} {variant.name} has no track {track}: it has {', '.join(variant.tracks)}")
        return track


class JudgeCard(Card):
    """The card of a judge, a trained thing that metrics need: what it accepts, and its weights by name."""

    kind: Literal["judge"]
    accepts: list[str]
    weights: Annotated[dict[Name, WeightsFile], Field(min_length=1)]


AnyCard = ModelCard | TaskCard | JudgeCard


def parse_factors(text: str) -> dict[str, str]:
    """`lattice=10x10,sigma=0.1` as a dict of strings."""
    factors: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UserError(f"variant {text!r}: {part!r} is not of the form factor=value")
        factors[name.strip()] = value.strip()
    return factors


def _inside(path: str, folder: str) -> str:
    if not path or PurePosixPath(path).is_absolute() or {"..", ""} & set(path.split("/")) or "\\" in path:
        raise ValueError(f"{path!r} is not a relative path inside {folder}")
    return path


def read_manifest(folder: Path) -> AnyCard:
    """Reads and checks the manifest in `folder`; UserError says in one line what is wrong with it."""
    path = folder / MANIFEST
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a plugin folder: it has no {MANIFEST}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    kinds: dict[str, type[AnyCard]] = {"model": ModelCard, "task": TaskCard, "judge": JudgeCard}
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{path}: kind is {kind!r}; {nearest(str(kind), kinds)}")
    try:
        return kinds[kind].model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: the first faulty field, what is wrong with it, and how many more there are."""
    first, *more = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return (f"{where}: " if where else "") + message + (f" (and {len(more)} more)" if more else "")
