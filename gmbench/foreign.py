"""What was made elsewhere, as something that metrics can measure: another framework's model, or a file of samples."""

from __future__ import annotations

import hashlib
import inspect
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from gmbench.errors import MissingCapability, UserError
from gmbench.model import Likelihood
from gmbench.randomness import derive_seed
from gmbench.spaces import Space, TokenPair
from gmbench.task import Draws

SAMPLES = "samples"
_NPY = b"\x93NUMPY"
MAX_SAMPLES = 10_000_000
# Capabilities whose methods give tensors, or things that metrics ask themselves.
TENSORS: tuple[str, ...] = ("energy", "couplings", "token_log_prob", "pseudo_log_prob", "score_text", "attention")
TENSORS += ("log_likelihood", "encode", "decode", "reconstruct")
OBJECTS = ("sampler", "prior", "posterior", "choose", "count_tokens")


def adapt(model: Any, space: Space, likelihood: Likelihood | None = None) -> SimpleNamespace:
    """The capability methods that `model` has, with the signatures of gmbench and their results checked.

    A method that takes no `rng` draws from torch's global generator, which is seeded inside a fork.

    Arguments:
        likelihood: What `log_prob` is, where the model does not say; exact by default.
    """
    offered = SimpleNamespace()
    if hasattr(model, "sample"):
        draw = _with_rng(model.sample)
        drawn = space.target if isinstance(space, TokenPair) else space  # of pairs a model draws the targets

        def sample(num: int, *, given: Any = None, rng: Generator) -> Tensor:
            x = _tensor(draw(num, rng=rng) if given is None else draw(num, given=given, rng=rng))
            x = _valid(drawn, x, "the model's samples")
            if len(x) != num:
                raise UserError(f"the model's sample({num}) gave {len(x)} points")
            return x

        offered.sample = sample
    if hasattr(model, "log_prob"):
        evaluate = _with_rng(model.log_prob)
        offered.likelihood = getattr(model, "likelihood", None) or likelihood or Likelihood()
        offered.log_prob = lambda x, *, rng: _tensor(evaluate(x, rng=rng))
    for name in TENSORS:
        if hasattr(model, name):
            setattr(offered, name, _as_tensor(getattr(model, name)))
    for name in OBJECTS:
        if hasattr(model, name):
            setattr(offered, name, getattr(model, name))
    if not vars(offered):
        accepted = sorted(("sample", "log_prob", *TENSORS, *OBJECTS))
        raise UserError(f"a {type(model).__name__} has none of the methods {', '.join(accepted)}")
    return offered


class FixedDraws(Draws):
    """Samples that are there already; a metric that wants more of them than there are is unavailable."""

    def __init__(self, samples: Tensor) -> None:
        self._samples = samples
        self.seconds = 0.0

    @property
    def per_second(self) -> float | None:
        return None

    def __call__(self, num: int) -> Tensor:
        if num > len(self._samples):
            raise MissingCapability(f"needs {num} samples, and the file has {len(self._samples)}")
        return self._samples[:num]


class GivenSamples:
    """A subject of which only samples are known: `sample` is the one capability it offers, through FixedDraws."""

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        """Declines: more draws than the file holds cannot be made."""
        raise MissingCapability("a file of samples cannot draw new ones")


def read_samples(path: Path, space: Space) -> Tensor:
    """The array of a .npy file, or the array `samples`, or the only one, of a .npz file, as points of `space`.

    Raises:
        UserError: The file is not one, or what is in it is not a set of points of the space.
    """
    try:
        with path.open("rb") as file:
            is_npy = file.read(len(_NPY)) == _NPY
            file.seek(0)
            array = _read_array(path, file) if is_npy else _read_archive(path)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable .npy or .npz file, as np.savez writes it: {reason}") from None
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: the samples have dtype {array.dtype}; numbers are expected")
    exact = np.float64 if array.dtype.kind == "f" else np.int64  # what numpy may hold and torch cannot, as `>i4`
    return _valid(space, torch.from_numpy(np.ascontiguousarray(array, dtype=exact)), f"{path}: samples")


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        name = SAMPLES if SAMPLES in names else names[0] if len(names) == 1 else ""
        if not name:
            raise UserError(f"{path} has the arrays {', '.join(names) or '(none)'}; which are samples? name it so")
        with archive.open(f"{name}.npy") as member:
            return _read_array(path, member)


def _read_array(path: Path, file: IO[bytes]) -> Any:
    """An array in the format of .npy, whose header states its shape before its values are read."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape = read(file)[0]
    if len(shape) == 0 or shape[0] > MAX_SAMPLES:
        raise UserError(f"{path}: shape {shape}; at most {MAX_SAMPLES} samples, one a row, are read")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def digest(subject: Any) -> str:
    """SHA-256 of a tensor, or of the weights of an nn.Module; empty where there are none that say what it is."""
    if isinstance(subject, nn.Module):
        tensors = list(subject.state_dict().items())
        if not tensors or not all(isinstance(tensor, Tensor) for _, tensor in tensors):
            return ""
    elif isinstance(subject, Tensor):
        tensors = [("", subject)]
    else:
        return ""
    found = hashlib.sha256()
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        found.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _with_rng(method: Callable[..., Any]) -> Callable[..., Any]:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    if any(parameter.name == "rng" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return method

    def without_rng(*arguments: Any, rng: Generator, **named: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed("foreign", int(torch.randint(2**62, (), generator=rng, device=rng.device))))
            return method(*arguments, **named)

    return without_rng


def _as_tensor(method: Callable[..., Any]) -> Callable[..., Tensor]:
    return lambda *arguments: _tensor(method(*arguments))


def _tensor(values: Any) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))


def _valid(space: Space, x: Tensor, what: str) -> Tensor:
    """`x` as points of the space; UserError where it is none."""
    try:
        points = space.cast(x)
        space.validate(points, what)
        return points
    except ValueError as error:
        hint = _hint(space, x)
        raise UserError(f"{error}; {hint}" if hint else str(error)) from None


def _hint(space: Space, x: Tensor) -> str:
    """How points that are written in another usual way become points of the space."""
    dim = getattr(space, "dim", 0)
    if x.isnan().any():
        return f"{int(x.isnan().sum())} of them are NaN"
    if x.ndim > 2 and x[0].numel() == dim:
        return f"reshape to ({len(x)}, {dim})"
    if x.numel() and ((x == -1) | (x == 1)).all():
        return "spins s become bits as (s + 1) / 2"
    return ""
