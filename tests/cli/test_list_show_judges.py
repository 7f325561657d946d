"""`gmbench list`, `show` and `check` of judges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


def test_list_names_judges_and_their_weights(gmbench: Call) -> None:
    rows = {row["name"]: row for row in gmbench("list", "judges", "--json").json}
    assert rows["coin_judge"]["weights"] == ["signs", "two"] and rows["coin_judge"]["accepts"] == ["binary"]
    assert "digits8" in rows["binary_cnn"]["weights"]
    everything = gmbench("list").out
    assert "\njudges\n" in everything and "coin_judge" in everything
    assert "coin_judge" not in gmbench("list", "models").out + gmbench("list", "tasks").out


def test_show_a_judge(gmbench: Call) -> None:
    done = gmbench("show", "coin_judge")
    for expected in (
        "judge coin_judge, version 1", "accepts: binary", "weights two: the first two of them",
        "two.safetensors, SHA-256", "made by: written by hand", "Signs were thought of", "licence: Apache-2.0",
    ):  # fmt: skip
        assert expected in done.out, expected
    shown = gmbench("show", "coin_judge", "--json").json
    assert set(shown["weights"]) == {"signs", "two"} and "effective" not in shown and "published" not in shown


def test_what_is_not_a_judge(gmbench: Call, coins: Path) -> None:
    done = gmbench("show", "coin_jugde")
    assert done.code == 2 and "no task, model or judge is named 'coin_jugde': did you mean 'coin_judge'" in done.err
    for option in ("--task", "--model"):
        other = {"--task": "--model", "--model": "--task"}[option]
        known = {"--task": "coin_task", "--model": "coin_model"}[other]
        done = gmbench("run", option, coins / "coin_judge", other, known)
        assert done.code == 2 and f"is a judge, not a {option[2:]}" in done.err


def test_check_a_judge(gmbench: Call) -> None:
    done = gmbench("check", "coin_judge")
    assert done.code == 0 and "passed   weights have their checksums" in done.out, done.out
    assert "executing the judge" in done.err


def test_judges_are_shown_without_torch() -> None:
    program = (
        "import sys; from gmbench.cli import main; main(['list', 'judges']); main(['show', 'binary_cnn']);"
        "print({'torch', 'numpy', 'safetensors'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()" and "weights digits8" in done.stdout
