"""The digest of what a plugin computes: its code and protocol, not its comments, its prose or its chosen config."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from gmbench.errors import UserError
from gmbench.record import canonical
from gmbench.registry import Plugin

# What a card says to people, and what the record's resolved config and metric versions say already.
_APART = {"summary", "notes", "tuning", "paper", "licence", "published"}
_APART |= {"config", "tracks", "tasks", "presets", "metrics", "variants", "default_variant", "default_track"}
_SHARED = tuple(f"gmbench.{package}." for package in ("tasks", "baselines", "samplers", "metrics"))


def source_digest(plugin: Plugin) -> str:
    """SHA-256 over the plugin's Python files, the samplers, metrics and neighbours they import, and its protocol.

    A comment, a docstring or a summary may change freely, and so may hyper-parameters, since the record's identity
    holds the resolved ones; a digest that changed while the version did not is what `leaderboard --check` looks for.
    """
    card = plugin.card.model_dump(mode="json", exclude=_APART)
    digest = hashlib.sha256(canonical(card).encode())
    files = _closure(sorted(plugin.folder.rglob("*.py")))
    root = plugin.folder.parent.parent
    for path in sorted(files, key=lambda p: p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name):
        digest.update(code_of(path).encode())
    for path in sorted(plugin.folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def code_of(path: Path) -> str:
    """A text that is equal for two files exactly when they parse to the same code, docstrings apart."""
    try:
        return _canonical_node(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None


def _canonical_node(node: object) -> str:
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")}
        body = fields.get("body")
        if isinstance(body, list):
            # A bare string is a docstring (of a module, a class, a function or a field) and does nothing.
            fields["body"] = [
                s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
                                        and isinstance(s.value.value, str))
            ]  # fmt: skip
        inner = [f"{name}={_canonical_node(value)}" for name, value in fields.items() if value not in (None, [])]
        return f"{type(node).__name__}({','.join(inner)})"
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical_node, node)) + "]"
    return repr(node)


def _closure(files: list[Path]) -> set[Path]:
    found: set[Path] = set()
    queue = [path for path in files if "__pycache__" not in path.parts]
    while queue:
        path = queue.pop().resolve()
        if path not in found:
            found.add(path)
            queue.extend(_relative_imports(path))
    return found


def _relative_imports(path: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None
    checkout = Path(__file__).parents[1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            folder = path.parents[node.level - 1].joinpath(*filter(None, module.split(".")))
        elif module.startswith(_SHARED):
            parts = module.split(".")[1:]
            inside = Path(__file__).parent.joinpath(*parts)
            folder = inside if inside.with_suffix(".py").exists() else checkout.joinpath(*parts)
        else:
            continue
        candidates = [folder.with_suffix(".py"), *(folder / f"{alias.name}.py" for alias in node.names)]
        yield from (candidate for candidate in candidates if candidate.is_file())
