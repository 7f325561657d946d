"""The one training loop: stages, optimizer updates, progress, and a checkpoint from which it resumes exactly."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from gmbench.checkpoint import Checkpoints
from gmbench.errors import RunFailed
from gmbench.model import Data, Model
from gmbench.progress import Progress, Silent
from gmbench.randomness import derive_seed, stream

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PROGRESS_SECONDS = 0.1
CHECKPOINT_SECONDS = 20.0


@dataclass
class Gradient:
    """A stage of gradient steps.

    Arguments:
        name: What the stage is called in progress lines, checkpoints and errors.
        num_steps: How many times `training_step` is called.
        batch_size: How many training points each step is given; 0 for none.
        optimizers: The stage's optimizers by name.
        training_step: `training_step(batch, step)`: computes losses and calls `step.minimize` or `step.update`.
        draw: Where batches come from, `draw(num, rng)`; the data's own draws by default.
        schedule: The factor on every learning rate as a function of the fraction of the stage that is done.
    """

    name: str
    num_steps: int
    batch_size: int
    optimizers: Mapping[str, torch.optim.Optimizer]
    training_step: Callable[[Tensor, Step], None]
    draw: Callable[[int, torch.Generator], Tensor] | None = None
    schedule: Callable[[float], float] | None = None


@dataclass
class Call:
    """A stage that calls a library or a closed form once: `run(rng)`. It starts again if it was interrupted."""

    name: str
    run: Callable[[torch.Generator], None]


Stage: TypeAlias = Gradient | Call


class Diverged(RunFailed):
    """A loss or a gradient stopped being a number; trying again with the same seed would give the same.

    `cost` is what the fit had cost by then.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.cost = Cost()


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has left a checkpoint."""


class Step:
    """What a `training_step` is handed: where it stands, its random stream, and how to update the optimizers."""

    def __init__(self, stage: Gradient, fabric: Fabric, rng: torch.Generator) -> None:
        self.index = 0
        self.num_steps = stage.num_steps
        self.rng = rng
        self.values: dict[str, float | Tensor] = {}
        self._stage, self._fabric = stage, fabric
        self._every_step = fabric.device.type == "cpu"
        self._base_rates = {
            name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in stage.optimizers.items()
        }

    @property
    def fraction(self) -> float:
        """The fraction of the stage that is done before this step, in [0, 1)."""
        return self.index / self.num_steps

    def minimize(self, loss: Tensor, optimizer: str = "main", *, clip: float | None = None) -> None:
        """One update of the named optimizer on `loss`, with the gradient's norm clipped to `clip` if given."""
        self._stage.optimizers[optimizer].zero_grad(set_to_none=True)
        self.check(loss, optimizer)
        self._fabric.backward(loss)
        self.update(optimizer, clip=clip)
        self.values[optimizer if len(self._stage.optimizers) > 1 else "loss"] = loss.detach()

    def update(self, optimizer: str = "main", *, clip: float | None = None) -> None:
        """One update of the named optimizer on gradients that are already in place."""
        chosen = self._stage.optimizers[optimizer]
        if clip is not None:
            parameters = [p for group in chosen.param_groups for p in group["params"] if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        if self._stage.schedule is not None:
            factor = self._stage.schedule(self.fraction)
            for group, rate in zip(chosen.param_groups, self._base_rates[optimizer], strict=True):
                group["lr"] = rate * factor
        chosen.step()

    def check(self, value: Tensor, what: str) -> None:
        """Raises Diverged where `value` is not finite: at every step on a CPU, every 50 steps elsewhere (a sync)."""
        if (self._every_step or self.index % 50 == 0) and not bool(value.isfinite().all()):
            raise Diverged(f"{what} of stage {self._stage.name!r} is not a finite number at step {self.index}")

    def log(self, **values: float | Tensor) -> None:
        """Scalars to show in the progress line; tensors are read only when the line is drawn."""
        self.values.update({name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()})


@dataclass
class Cost:
    """What fitting has cost so far, accumulated over resumes. Seconds of this process, bytes of resident memory."""

    wall_seconds: float = 0.0
    process_seconds: float = 0.0
    steps: int = 0
    examples: int = 0
    peak_memory_bytes: int = 0
    resumes: int = 0


VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextlib.contextmanager
def _devices_known(device: torch.device) -> Iterator[None]:
    """Without the search for CUDA devices that torch's optimizers repeat at every step, where there are none.

    It loads a library of the driver each time: .1 to .5 ms, a tenth of a small model's step.
    """
    if device.type != "cpu" or VISIBLE in os.environ or torch.cuda.device_count():
        yield
        return
    os.environ[VISIBLE] = ""
    try:
        yield
    finally:
        os.environ.pop(VISIBLE, None)


@dataclass
class Trainer:
    """Fits models stage by stage.

    Arguments:
        folder: Where checkpoints go; None keeps none.
        seed: The run's seed; the streams `data`, `train` and torch's global generator derive from it.
        device: A torch device such as `cpu` or `cuda:0`.
        precision: A precision of Lightning Fabric such as `32-true` or `bf16-mixed`.
        should_stop: Asked after every step; when it says yes, a checkpoint is left and Interrupted is raised.
    """

    folder: Path | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Any = "32-true"
    progress: Progress = field(default_factory=Silent)
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def fit(self, model: Model, data: Data) -> Cost:
        """Fits `model` in place, from the newest checkpoint if there is one, and returns what it has cost."""
        fabric = self._fabric()
        model.to(fabric.device)
        self._clock = (time.perf_counter(), time.process_time())
        self._cost = Cost()
        self._checkpoints = Checkpoints(self.folder) if self.folder else None
        self._rngs = {
            "data": stream("data/batches", self.seed),
            "train": stream("train", self.seed, device=fabric.device),
        }
        cuda = [fabric.device] if fabric.device.type == "cuda" else []
        with _devices_known(fabric.device), torch.random.fork_rng(devices=cuda):
            # Dropout and its kin know only the global generator: it is ours inside this fork, and checkpointed.
            torch.manual_seed(derive_seed("train/global", self.seed))
            state = self._checkpoints.load(fabric.device) if self._checkpoints else None
            first, done = (state["stage"], state["step"]) if state else (0, 0)
            stages = model.stages(data)
            _require_own_optimizers(stages)
            optimizer_state: Any = None
            if state is not None:
                model.load_state_dict(state["model"])
                self._restore_randomness(state)
                self._cost = Cost(**state["cost"])
                self._cost.resumes += 1
                optimizer_state = state["optimizers"]
                self.progress.message(f"resuming at stage {first + 1} of {len(stages)}, step {done}")
            self._model = model
            model.train()
            try:
                for position, stage in enumerate(stages):
                    if position < first:
                        continue
                    begin = done if position == first else 0
                    if isinstance(stage, Call):
                        self._call(stage, position)
                    else:
                        kept = optimizer_state if position == first else None
                        self._gradient(stage, position, begin, kept, data, fabric)
            except Diverged as error:
                self._account()
                error.cost = self._cost
                raise
            model.eval()
            self._account()
        return self._cost

    def clear(self) -> None:
        """Removes the checkpoints of a fit whose weights are stored."""
        if self._checkpoints is not None:
            self._checkpoints.clear()

    def _fabric(self) -> Fabric:
        from lightning_fabric import Fabric

        kind, _, number = self.device.partition(":")
        devices: Any = [int(number)] if number else 1
        fabric = Fabric(accelerator=kind, devices=devices, precision=self.precision)
        fabric.launch()
        return fabric

    def _call(self, stage: Call, position: int) -> None:
        self.progress.stage(stage.name, 1, 0)
        stage.run(self._rngs["train"])
        self._check_state(stage)
        self.progress.advance(1, {})
        self._save(position + 1, 0, {})

    def _gradient(
        self, stage: Gradient, position: int, begin: int, optimizer_state: Any, data: Data, fabric: Fabric
    ) -> None:
        step = Step(stage, fabric, self._rngs["train"])
        for name, optimizer in stage.optimizers.items():
            if optimizer_state:
                optimizer.load_state_dict(optimizer_state[name])
        draw, rng = stage.draw or data.draw, self._rngs["data"]
        empty = torch.empty(0, device=fabric.device)
        self.progress.stage(stage.name, stage.num_steps, begin)
        saved = shown = time.monotonic()
        for index in range(begin, stage.num_steps):
            step.index = index
            batch = draw(stage.batch_size, rng).to(fabric.device) if stage.batch_size else empty
            with fabric.autocast():
                stage.training_step(batch, step)
            self._cost.steps += 1
            self._cost.examples += stage.batch_size
            now = time.monotonic()
            if now - shown > PROGRESS_SECONDS:
                self.progress.advance(index + 1, {name: float(value) for name, value in step.values.items()})
                shown = now
            if self.should_stop():
                self._save(position, index + 1, stage.optimizers)
                raise Interrupted
            if now - saved > self.checkpoint_seconds:
                self._save(position, index + 1, stage.optimizers)
                saved = time.monotonic()
        for name, value in step.values.items():
            if not math.isfinite(float(value)):
                raise Diverged(f"{name} of stage {stage.name!r} is not a finite number at step {stage.num_steps}")
        self._check_state(stage)  # the last update follows the last loss
        self.progress.advance(stage.num_steps, {name: float(value) for name, value in step.values.items()})
        self._save(position + 1, 0, {})

    def _check_state(self, stage: Stage) -> None:
        for name, tensor in self._model.state_dict().items():
            if tensor.is_floating_point() and bool(tensor.isnan().any()):
                raise Diverged(f"{name} is not a number after stage {stage.name!r}")

    def _account(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self._cost.wall_seconds += now[0] - self._clock[0]
        self._cost.process_seconds += now[1] - self._clock[1]
        self._clock = now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self._cost.peak_memory_bytes = max(self._cost.peak_memory_bytes, peak)

    def _save(self, stage: int, step: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        if self._checkpoints is None:
            return
        self._account()
        randomness = {name: rng.get_state() for name, rng in self._rngs.items()}
        randomness["global"] = torch.get_rng_state()
        if torch.cuda.is_available():
            randomness["global_cuda"] = torch.cuda.get_rng_state()
        self._checkpoints.save(
            {
                "stage": stage,
                "step": step,
                "model": self._model.state_dict(),
                "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
                "rng": randomness,
                "cost": vars(self._cost),
            }
        )

    def _restore_randomness(self, state: Mapping[str, Any]) -> None:
        for name, rng in self._rngs.items():
            rng.set_state(state["rng"][name].cpu())
        torch.set_rng_state(state["rng"]["global"].cpu())
        if "global_cuda" in state["rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["rng"]["global_cuda"].cpu())


def _require_own_optimizers(stages: Sequence[Stage]) -> None:
    """A checkpoint holds the optimizers of the stage that runs: one that a later stage used too would be lost."""
    owner: dict[int, Stage] = {}
    for stage in stages:
        for optimizer in stage.optimizers.values() if isinstance(stage, Gradient) else ():
            if (first := owner.setdefault(id(optimizer), stage)) is not stage:
                raise ValueError(f"the stages {first.name!r} and {stage.name!r} share an optimizer: give each its own")


def cosine(fraction: float) -> float:
    """A learning-rate schedule that falls from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * fraction))


def linear_decay(begin: float = 0.5) -> Callable[[float], float]:
    """A schedule that stays at 1 until the fraction `begin` and then falls linearly to 0."""
    return lambda fraction: 1.0 if fraction < begin else (1 - fraction) / (1 - begin)


__all__: Sequence[str] = (
    "Call", "Cost", "Diverged", "Gradient", "Interrupted", "Stage", "Step", "Trainer", "cosine", "linear_decay",
)
