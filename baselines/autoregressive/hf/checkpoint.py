"""Checkpoints of transformers: where one lies, which bytes decide what it computes, and loading it safely.

Pickled weights and code that comes with a checkpoint run when they are loaded; neither is.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gmbench.errors import UserError
from gmbench.record import canonical, sha256_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# What decides the probabilities of a text: weights, the config, and what tokenizers read.
READ = ("*.safetensors", "*.json", "*.txt", "*.model")
NOT_READ = ("generation_config.json", "trainer_state.json", "training_args.json")
TOKENIZER = ("tokenizer*", "vocab*", "*.model")  # one of these at least
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory: its network in evaluation mode and float32, its tokenizer, and whether it is masked."""

    network: Any
    tokenizer: Any
    masked: bool


def locate(checkpoint: str) -> Path:
    """The folder of a checkpoint: a path, or else a name on the Hugging Face hub, from its cache or fetched.

    Raises:
        UserError: There is no such folder, or no such checkpoint in the cache and none that can be fetched.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") > 1:
        raise UserError(f"no folder {checkpoint}: a checkpoint is a folder with {WEIGHTS[0]}, or a name")
    hub = _required("huggingface_hub")
    try:
        return Path(hub.snapshot_download(checkpoint, allow_patterns=list(READ), ignore_patterns=["*/*"]))
    except Exception as error:  # of the network, of the hub, of the name
        raise UserError(
            f"checkpoint {checkpoint!r} is no folder here, is not in the cache of the Hugging Face hub, and cannot be "
            f"fetched ({_line(error)})"
        ) from None


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of what is read of a checkpoint.

    Raises:
        UserError: The folder holds no weights that are safe to load.
    """
    require_safe(folder)
    files = sorted({path for pattern in READ for path in folder.glob(pattern)} - {folder / name for name in NOT_READ})
    return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


# A plan for each of several seeds asks, and weights may be gigabytes; a file that changed has another time or size.
@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    contents = [[path.name, sha256_of(path)] for path, _, _ in files]
    return hashlib.sha256(canonical(contents).encode()).hexdigest()


def require_safe(folder: Path) -> None:
    """UserError unless the folder holds a config and safetensors of a whole model."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no checkpoint of transformers: it has no config.json")
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{folder} holds an adapter of another checkpoint: merge the two and save the whole model")
    if any((folder / name).is_file() for name in WEIGHTS):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise UserError(
            f"{folder} has only pickled weights ({pickled[0]}), which may execute anything when they are loaded: "
            f"save the model as safetensors ({WEIGHTS[0]})"
        )
    raise UserError(f"{folder} has no weights: {WEIGHTS[0]} is missing")


def load(folder: Path) -> Loaded:
    """The network and the tokenizer of a folder, without network access; UserError says what is wrong with it."""
    require_safe(folder)
    transformers = _required("transformers")
    # Its threads would be beside the run's; the number of threads is part of a run.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            masked = _is_masked(transformers, config, folder)
            kind = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
            network, found = kind.from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True, **local
            )
            if not any(path for pattern in TOKENIZER for path in folder.glob(pattern)):
                raise UserError(f"{folder} has no tokenizer: save that of the model there as well")
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
        except UserError:
            raise
        except Exception as error:  # damaged files raise almost anything
            raise UserError(f"{folder} cannot be loaded: {_line(error)}") from None
    if missing := sorted(found["missing_keys"]):
        # transformers would go on with random numbers there
        raise UserError(f"{folder}: {WEIGHTS[0]} lacks {len(missing)} weights of the network, {missing[0]} first")
    if further := _further_layers(found["unexpected_keys"], network.state_dict()):
        raise UserError(f"{folder}: the weights have layers that config.json leaves out, with {further[0]} first")
    return Loaded(_fused(network.float().eval().requires_grad_(False)), tokenizer, masked)


def _further_layers(unexpected: Iterable[str], known: Iterable[str]) -> list[str]:
    """The weights of layers that the network lacks, while it has others of that kind: `h.2` where there is `h.0`.

    What else is unexpected is a pooler, a second head, or a table that older versions of the library stored.
    """
    layers = {layer for name in known for layer in _layers(name)}
    kinds = {layer.rpartition(".")[0] for layer in layers}
    return sorted(
        name
        for name in unexpected
        if any(one not in layers and one.rpartition(".")[0] in kinds for one in _layers(name))
    )


def _layers(name: str) -> list[str]:
    """`a.h.2` of a weight that is called a.h.2.b: its name up to each number in it."""
    parts = name.split(".")
    return [".".join(parts[: place + 1]) for place, part in enumerate(parts) if part.isdigit()]


def _fused(network: Any) -> Any:
    """The network with the tanh form of GELU in one pass over memory, where transformers takes eight.

    It is the same function up to rounding (GPT-2 and its kin have it): 15 % of the time of scoring a small model.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))
    return network


def _is_masked(transformers: Any, config: Any, folder: Path) -> bool:
    """Whether the checkpoint is of a masked model, by the class that it was saved of, or of a causal one."""
    saved = " ".join(config.architectures or [])
    if "MaskedLM" in saved or "ForPreTraining" in saved:
        return True
    if "CausalLM" in saved or "LMHeadModel" in saved:
        return False
    what = saved or config.model_type
    raise UserError(f"{folder} holds {what}, which is neither a causal nor a masked language model")


def _required(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f'--model hf needs {error.name or package}: pip install "gmbench[hf]"') from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bars and warnings that transformers prints while it loads."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(error: BaseException) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"
