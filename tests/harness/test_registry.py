"""Discovery finds the bundled plugins, $GMBENCH_PATH and installed packages, and executes none of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from gmbench.errors import UserError
from gmbench.plugin import DataFile, TaskCard
from gmbench.registry import discover

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "coin-plugins"
version = "0.1"

[project.entry-points."gmbench.plugins"]
installed_coin = "coin_plugins.installed_coin"

[tool.hatch.build.targets.wheel]
packages = ["coin_plugins"]
"""


def test_bundled_plugins_are_found_without_being_executed() -> None:
    before = set(sys.modules)
    registry = discover()
    assert {"ising", "synthetic2d"} <= set(registry.tasks)
    new = {name for name in set(sys.modules) - before if name.startswith(("gmbench.tasks.", "gmbench.baselines."))}
    assert not new and not registry.broken and not registry.clashes


def test_folder_of_a_found_plugin_is_that_plugin(coins: Path) -> None:
    registry = discover()
    found = registry.models["independent_bits"]
    assert registry.model(str(found.folder)) is found
    with pytest.raises(UserError, match="is a task, not a model"):
        registry.model(str(coins / "coin_task"))


def test_two_copies_of_a_plugin_do_not_share_modules(coins: Path, tmp_path: Path) -> None:
    for name, value in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "plugin.toml").write_text((coins / "coin_model" / "plugin.toml").read_text())
        (folder / "part.py").write_text(f"VALUE = {value}\n")
        (folder / "model.py").write_text("from .part import VALUE\nclass CoinModel:\n    value = VALUE\n")
    registry = discover()
    assert [registry.model(str(tmp_path / name)).load().value for name in ("one", "two")] == [1, 2]


def test_installed_package(coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small real package, built and installed by pip, whose top level must not be imported to list it."""
    pytest.importorskip("hatchling")
    source, target = tmp_path / "source", tmp_path / "target"
    plugin = source / "coin_plugins" / "installed_coin"
    plugin.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "coin_plugins" / "__init__.py").write_text("")
    (plugin / "__init__.py").write_text("")
    manifest = (coins / "coin_model" / "plugin.toml").read_text().replace('"coin_model"', '"installed_coin"')
    (plugin / "plugin.toml").write_text(manifest)
    (plugin / "model.py").write_text((coins / "coin_model" / "model.py").read_text())
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", target, source],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(target))
    monkeypatch.chdir(tmp_path)
    registry = discover()
    assert registry.models["installed_coin"].package == "coin_plugins.installed_coin"
    assert "coin_plugins" not in sys.modules
    from gmbench.api import run

    record = run("coin_task", "installed_coin", overrides={"num_steps": 5})
    assert record.status == "done" and record.model == "installed_coin"
    assert "coin_plugins.installed_coin.model" in sys.modules


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../b", "a//b", "..\\b", ""])
def test_data_files_stay_in_their_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="not a relative path inside the data folder"):
        DataFile(path=path, sha256="0" * 64)
    assert DataFile(path="mnist/train..gz", sha256="0" * 64)


def test_a_file_is_for_variants_that_there_are(coins: Path) -> None:
    raw = tomllib.loads((coins / "coin_task" / "plugin.toml").read_text())
    variant = raw["variants"][0]["name"]
    raw["data"] = [{"path": "a/b", "sha256": "0" * 64, "variants": [variant]}]
    card = TaskCard.model_validate(raw)
    assert card.data[0].needed_by(card.variants[0].factors)
    raw["data"][0]["variants"] = ["no_such=1"]
    with pytest.raises(ValueError, match="'no_such=1', which no variant has"):
        TaskCard.model_validate(raw)
