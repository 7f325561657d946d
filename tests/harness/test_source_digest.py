"""Which changes of a plugin change its digest: those of its code, wherever it lies, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gmbench import source
from gmbench.code_text import code_text
from gmbench.errors import UserError
from gmbench.plugin import read_manifest
from gmbench.registry import Plugin, discover
from gmbench.source import source_digest

MANIFEST = """
kind = "model"
name = "mine"
version = 1
summary = "A model"
entry = "model:Mine"
family = "energy"
licence = "MIT"
accepts = ["binary"]
capabilities = ["sample"]

[config]
rate = 0.5
"""
MODEL = '''"""A model."""
import gmbench.metrics.one
from gmbench.samplers import two

from ..neighbour import helper
from .part import piece


class Mine:
    """What it is."""

    rate: float
    """Help."""

    def f(self):
        """Doc."""
        return helper(piece)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin with a part, a neighbour, and shared modules, one of which imports another."""
    mine = tmp_path / "house" / "family" / "mine"
    files = {
        "plugin.toml": MANIFEST, "model.py": MODEL, "part.py": "piece = 1\n", "data.json": "[1]",
        "../neighbour.py": "from .further import z\n\ndef helper(x): return x\n", "../further.py": "z = 1\n",
        "../stranger.py": "y = 1\n", "../../gmbench/metrics/one.py": "from gmbench.metrics.three import c\n",
        "../../gmbench/metrics/three.py": "c = 1\n", "../../gmbench/samplers/two.py": "b = 1\n",
        "../../gmbench/samplers/four.py": "d = 1\n",
    }  # fmt: skip
    for name, content in files.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(content)
    monkeypatch.setattr(source, "__file__", str(tmp_path / "house" / "gmbench" / "source.py"))
    return mine


def digest(folder: Path) -> str:
    source._parse.cache_clear()  # tests write faster than some clocks tick
    return source_digest(Plugin(read_manifest(folder), folder))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model.py", "class Mine", "# a comment\nclass Mine"),
        ("model.py", '"""Doc."""', '"""Another."""'),
        ("model.py", '    """Help."""\n', ""),
        ("model.py", "helper(piece)", "(helper(\n            piece))"),
        ("plugin.toml", "rate = 0.5", "rate = 0.7"),
        ("plugin.toml", '"A model"', '"A good model"'),
        ("../neighbour.py", "\n\n", "\n# why\n"),
        ("../stranger.py", "1", "2"),
        ("../../gmbench/samplers/four.py", "1", "2"),
    ],
)
def test_what_keeps_it(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    _replace(folder / file, old, new)
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model.py", "return helper", "return -helper"),
        ("model.py", "rate: float", "rate: int"),
        ("part.py", "1", "1.0"),
        ("../neighbour.py", "return x", "return +x"),
        ("../further.py", "1", "2"),
        ("../../gmbench/metrics/one.py", "three import c", "three import c as d"),
        ("../../gmbench/metrics/three.py", "1", "2"),
        ("../../gmbench/samplers/two.py", "1", "True"),
        ("data.json", "1", "2"),
        ("plugin.toml", '["sample"]', '["sample", "energy"]'),
    ],
)
def test_what_changes_it(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    _replace(folder / file, old, new)
    assert digest(folder) != before


def test_a_change_is_seen_within_one_process(folder: Path) -> None:
    plugin = Plugin(read_manifest(folder), folder)
    before = source_digest(plugin)
    _replace(folder / "part.py", "1", "22")
    assert source_digest(plugin) != before


def test_where_the_folder_lies_does_not_matter(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    copy = tmp_path / "a" / "b" / "c" / "other"
    shutil.copytree(folder.parents[1], copy)
    assert digest(copy / "family" / "mine") == before
    (copy / "family" / "mine" / "__pycache__").mkdir()
    (copy / "family" / "mine" / "__pycache__" / "x.py").write_text("x")
    assert digest(copy / "family" / "mine") == before


def test_bundled_plugins_have_the_same_digest_in_another_process() -> None:
    script = (
        "from gmbench.registry import discover; from gmbench.source import source_digest; r = discover();"
        "print([source_digest(p) for _, p in sorted(r.models.items()) + sorted(r.tasks.items())])"
    )
    registry = discover()
    plugins = [p for _, p in sorted(registry.models.items()) + sorted(registry.tasks.items())]
    here = [source_digest(plugin) for plugin in plugins]
    assert len(set(here)) == len(here) > 1
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert there.stdout.strip() == str(here)


def test_code_that_does_not_parse_is_named(folder: Path) -> None:
    (folder / "part.py").write_text("def (\n")
    with pytest.raises(UserError, match=r"part\.py: line 1"):
        digest(folder)


# Fields that versions of Python added or print otherwise: the text is the same on all of them.
def test_the_text_is_spelled_out() -> None:
    assert code_text("x = 'ü🫨'") == (
        r"Module(body=[Assign(targets=[Name(id='x')],value=Constant(value='\xfc\U0001fae8'))])"
    )
    text = code_text("def f(a: int = 1, *b) -> None:\n    'doc'\n    pass\n")
    assert "type_params" not in text and "decorator_list" not in text and "doc" not in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = f'{a}' 'b' 'c'", "x = f'{a}bc'"),
        ("x = f'a{b}' f'' 'c'", "x = f'a{b}c'"),
        ("x = u'a'", "x = 'a'"),
        ("x = (1)", "x = 1 # one"),
        ("if a:\n    'words'\n    b", "if a:\n    b"),
    ],
)
def test_equal_code(one: str, other: str) -> None:
    assert code_text(one) == code_text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"), ("x = 1", "x = True"), ("x = None", "x = ()"), ("x = 'a'", "x = b'a'"),
        ("x = f'{a}'", "x = f'{a!r}'"), ("x = f'{a:>3}'", "x = f'{a:>4}'"), ("x = {}", "x = {None: 1}"),
        ("def f(): return", "def f(): return None"), ("x = 'None'", "x = None"), ("f(a, b)", "f(b, a)"),
        ("class A: x = 1", "class A: x: int = 1"), ("x = [1]", "x = [[1]]"),
    ],
)  # fmt: skip
def test_different_code(one: str, other: str) -> None:
    assert code_text(one) != code_text(other)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
