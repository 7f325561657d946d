"""The digest of what a plugin computes: its code and protocol, not its comments, its prose or its chosen config."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from gmbench.code_text import code_text
from gmbench.errors import UserError
from gmbench.record import canonical, sha256_of
from gmbench.registry import Plugin

# What a card says to people, and what the record's resolved config and metric versions say already.
_APART = {"summary", "notes", "tuning", "paper", "licence", "published", "argument"}
_APART |= {"config", "tracks", "tasks", "presets", "metrics", "variants", "default_variant", "default_track"}
_SHARED = ("tasks", "baselines", "samplers", "metrics")
_DATA_SUFFIXES = (".safetensors", ".npz", ".npy", ".json", ".csv")


def source_digest(plugin: Plugin) -> str:
    """SHA-256 over the plugin's Python and data files, the samplers, metrics and neighbours it imports, its protocol.

    A comment, a docstring or a summary may change freely, and so may hyper-parameters, since the record's identity
    holds the resolved ones; a digest that changed while the version did not is what `leaderboard --check` looks for.
    Where the folder lies does not matter, nor does the version of Python.
    """
    folder = plugin.folder.resolve()
    parts = [f"{path.name} {_code_of(path)}" for path in _closure(sorted(folder.rglob("*.py")))]
    parts += [
        f"{path.relative_to(folder).as_posix()} {sha256_of(path)}"
        for path in folder.rglob("*")
        if path.suffix in _DATA_SUFFIXES and path.is_file()
    ]
    # a file of the user's is data, and no part of what its task computes
    apart: dict[str, Any] = dict.fromkeys(_APART, True)
    # another form of a data file holds the same
    apart["data"] = True if getattr(plugin.card, "argument", "") else {"__all__": {"unpacked_sha256"}}
    card = plugin.card.model_dump(mode="json", exclude=apart)
    card |= {"inputs": {}} if "inputs" in card else {}  # the record's identity holds what they are resolved to
    return hashlib.sha256(canonical([card, sorted(parts)]).encode()).hexdigest()


def _code_of(path: Path) -> str:
    return _parsed(path)[0]


def _closure(files: list[Path]) -> set[Path]:
    """The files and all that they import, directly or not, of the plugin, its neighbours and the shared packages."""
    found: set[Path] = set()
    queue = [path for path in files if "__pycache__" not in path.parts]
    while queue:
        path = queue.pop().resolve()
        if path not in found:
            found.add(path)
            queue.extend(_parsed(path)[1])
    return found


def _parsed(path: Path) -> tuple[str, tuple[Path, ...]]:
    """The file's code as text, and the files that it imports."""
    status = path.stat()
    return _parse(path, status.st_mtime_ns, status.st_size)


# The shared modules are imported by many plugins; a file that changed has another time or size.
@cache
def _parse(path: Path, modified: int, size: int) -> tuple[str, tuple[Path, ...]]:
    try:
        source = path.read_text(encoding="utf-8")
        return hashlib.sha256(code_text(source).encode()).hexdigest(), tuple(_imports(path, ast.parse(source)))
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {error}") from None


def _imports(path: Path, tree: ast.AST) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(_shared_place(alias.name), [])
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                place = path.parents[node.level - 1].joinpath(*filter(None, (node.module or "").split(".")))
                yield from _modules(place, names)
            else:
                yield from _modules(_shared_place(node.module or ""), names)


def _modules(place: Path | None, names: list[str]) -> Iterator[Path]:
    """The files that importing `names` from the module or package at `place` may execute."""
    if place is not None:
        inside = (place / f"{name}.py" for name in names)
        packages = (place / name / "__init__.py" for name in names)
        candidates = (place.parent / f"{place.name}.py", place / "__init__.py", *inside, *packages)
        yield from (candidate for candidate in candidates if candidate.is_file())


def _shared_place(module: str) -> Path | None:
    """Where a module of `gmbench.samplers` and the like lies; None for every other module."""
    top, *parts = module.split(".")
    if top != "gmbench" or not parts or parts[0] not in _SHARED:
        return None
    package = Path(__file__).parent
    inside, checkout = package.joinpath(*parts), package.parent.joinpath(*parts)
    return inside if inside.is_dir() or inside.with_suffix(".py").is_file() else checkout
