"""Discovery: where plugins are looked for, and how the chosen one is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gmbench.errors import UserError, nearest
from gmbench.plugin import MANIFEST, AnyCard, TaskCard, read_manifest

ENTRY_POINT_GROUP = "gmbench.plugins"
_BUNDLED = ("tasks", "baselines")


@dataclass(frozen=True)
class Plugin:
    """A manifest and where it was found. `package` is its dotted name where it can be imported by one."""

    card: AnyCard
    folder: Path
    package: str = ""

    def load(self) -> Any:
        """Imports the plugin and returns the class that `entry` names. This executes the plugin's code."""
        module_name, _, attribute = self.card.entry.partition(":")
        module = _import(self, module_name)
        try:
            return getattr(module, attribute)
        except AttributeError:
            raise UserError(f"{self.folder / MANIFEST}: entry {self.card.entry!r}: no {attribute} there") from None


@dataclass
class Registry:
    """All plugins that were found, and the manifests that could not be read."""

    models: dict[str, Plugin] = field(default_factory=dict)
    tasks: dict[str, Plugin] = field(default_factory=dict)
    judges: dict[str, Plugin] = field(default_factory=dict)
    broken: dict[Path, str] = field(default_factory=dict)
    clashes: dict[tuple[str, str], list[Path]] = field(default_factory=dict)

    def add(self, folder: Path, package: str = "") -> None:
        try:
            card = read_manifest(folder)
        except UserError as error:
            self.broken[folder] = str(error)
            return
        table = self._tables()[card.kind]
        if card.name in table and table[card.name].folder.resolve() != folder.resolve():
            known = self.clashes.setdefault((card.kind, card.name), [table[card.name].folder])
            known.append(folder)
            return
        table[card.name] = Plugin(card, folder, package)

    def model(self, name: str) -> Plugin:
        """The model of that name, or the plugin in the folder of that path.

        `name+preset` is accepted, and `name:value` of a model whose card says which hyper-parameter the value is.
        """
        start, colon, _ = name.partition(":")
        if colon and (found := self.models.get(start)) and getattr(found.card, "argument", ""):
            return found
        base, plus, _ = name.rpartition("+")
        return self._get("model", self.models, base if plus and not Path(name).is_dir() else name)

    def task(self, name: str) -> Plugin:
        """The task of that name, or the plugin in the folder of that path.

        `name:path` is accepted of a task that is about a file of the user's: its card then is about that file.
        """
        start, colon, path = name.partition(":")
        card = self.tasks[start].card if colon and start in self.tasks else None
        if isinstance(card, TaskCard) and card.argument:
            from gmbench.data.own_file import card_of_file

            return replace(self._get("task", self.tasks, start), card=card_of_file(card, path))
        return self._get("task", self.tasks, name)

    def judge(self, name: str) -> Plugin:
        """The judge of that name, or the plugin in the folder of that path."""
        return self._get("judge", self.judges, name)

    def find(self, name: str) -> Plugin:
        """The task, model or judge of that name, or the plugin of any kind in the folder of that path."""
        if _is_path(name):
            return self._in_folder(name)
        tables = self._tables()
        kinds = [kind for kind, table in tables.items() if name in table or (kind, name) in self.clashes]
        if name.rpartition("+")[0] in self.models:
            kinds = ["model"]
        if len(kinds) > 1:
            raise UserError(f"{name!r} is a {' and a '.join(kinds)}; give the path of its folder")
        if kinds:
            return self.model(name) if kinds == ["model"] else self._get(kinds[0], tables[kinds[0]], name)
        for folder, reason in self.broken.items():
            if folder.name == name:
                raise UserError(f"{name!r} has a broken manifest: {reason}")
        everything = {name: plugin for table in tables.values() for name, plugin in table.items()}
        raise UserError(f"no task, model or judge is named {name!r}: {_hint(name, everything)}")

    def _tables(self) -> dict[str, dict[str, Plugin]]:
        return {"task": self.tasks, "model": self.models, "judge": self.judges}

    def _in_folder(self, name: str) -> Plugin:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UserError(f"no folder {name}: a plugin is named, or given as the path of its folder")
        for plugin in (plugin for table in self._tables().values() for plugin in table.values()):
            # A plugin that was found belongs to a package, and may import relatively from the folder above it.
            if plugin.folder.resolve() == folder.resolve():
                return plugin
        return Plugin(read_manifest(folder), folder)

    def refuse_namesake(self, plugin: Plugin) -> None:
        """UserError where a plugin given by its path has the name of another that was found: results go by names."""
        other = self._tables()[plugin.card.kind].get(plugin.card.name)
        if other is not None and other.folder.resolve() != plugin.folder.resolve():
            raise UserError(
                f"two {plugin.card.kind} plugins are named {plugin.card.name!r}: {other.folder} and {plugin.folder}; "
                f"give the copy a name of its own in its {MANIFEST}"
            )

    def _get(self, kind: str, table: dict[str, Plugin], name: str) -> Plugin:
        if _is_path(name):
            plugin = self._in_folder(name)
            if plugin.card.kind != kind:
                raise UserError(f"{plugin.folder / MANIFEST} is a {plugin.card.kind}, not a {kind}")
            return plugin
        if paths := self.clashes.get((kind, name)):
            raise UserError(f"two {kind} plugins are named {name!r}: {' and '.join(map(str, paths))}")
        if name in table:
            return table[name]
        for folder, reason in self.broken.items():
            if folder.name == name:
                raise UserError(f"the {kind} {name!r} has a broken manifest: {reason}")
        raise UserError(f"no {kind} is named {name!r}: {_hint(name, table)}")


def _is_path(name: str) -> bool:
    return "/" in name or os.sep in name or name.startswith(".")


def _hint(name: str, table: dict[str, Plugin]) -> str:
    """What an unknown name may have meant; `gmbench list` is pointed to where there are too many names for a line."""
    if Path(name, MANIFEST).is_file():
        return f"did you mean ./{name}?"
    found = nearest(name, table)
    return found if "known" in found else f"{found} 'gmbench list' names all {len(table)}"


def discover() -> Registry:
    """Finds every plugin: bundled, named by installed packages' entry points, and in the folders of $GMBENCH_PATH."""
    registry = Registry()
    for kind, root in _bundled_roots():
        for manifest in sorted(root.rglob(MANIFEST)):
            folder = manifest.parent
            registry.add(folder, ".".join(("gmbench", kind, *folder.relative_to(root).parts)))
    for folder, package in _entry_points():
        registry.add(folder, package)
    for entry in _search_path():
        for manifest in sorted(entry.glob(f"*/{MANIFEST}")):
            registry.add(manifest.parent)
    return registry


def _search_path() -> list[Path]:
    return [Path(entry).expanduser() for entry in os.environ.get("GMBENCH_PATH", "").split(os.pathsep) if entry]


def faults_of_search_path() -> list[str]:
    """What is wrong with the folders that $GMBENCH_PATH names, each in one line."""
    missing = [f"GMBENCH_PATH names {entry}, which is no folder" for entry in _search_path() if not entry.is_dir()]
    return missing + [
        f"GMBENCH_PATH names {entry}, which is a plugin; it should name the folder that contains it"
        for entry in _search_path()
        if (entry / MANIFEST).is_file()
    ]


def place_of(error: BaseException) -> str:
    """Where an error arose, as `file:line`: in the innermost frame of a plugin if there is one, else the innermost."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno))
        trace = trace.tb_next
    in_plugins = [(file, line) for file, line in frames if any((up / MANIFEST).is_file() for up in file.parents)]
    return next((f"{file}:{line}" for file, line in reversed(in_plugins or frames)), "")


def _bundled_roots() -> Iterator[tuple[str, Path]]:
    package = Path(__file__).parent
    checkout = package.parent
    for kind in _BUNDLED:
        inside = package / kind
        yield kind, inside
        if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
            yield kind, checkout / kind


def _entry_points() -> Iterator[tuple[Path, str]]:
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINT_GROUP):
        top, *rest = entry.value.partition(":")[0].split(".")
        spec = importlib.util.find_spec(top)  # of a top-level name: finds without executing
        for location in (spec.submodule_search_locations or []) if spec else []:
            folder = Path(location, *rest)
            if (folder / MANIFEST).is_file():
                yield folder, ".".join((top, *rest))
                break


@cache
def _synthetic_package(folder: Path) -> str:
    """A package name for a folder that no installed package contains, so that its modules may import relatively."""
    import hashlib

    name = f"gmbench_plugin_{folder.name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return name


def _import(plugin: Plugin, module_name: str) -> ModuleType:
    package = plugin.package or _synthetic_package(plugin.folder.resolve())
    try:
        return importlib.import_module(f"{package}.{module_name}")
    except Exception as error:
        raise UserError(
            f"the {plugin.card.kind} {plugin.card.name!r} in {plugin.folder} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
