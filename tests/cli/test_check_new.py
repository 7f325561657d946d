"""`gmbench new` writes plugins that `gmbench check` passes and `gmbench run` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.mark.parametrize(("kind", "more"), [("model", []), ("model", ["--space", "tokens"]), ("task", [])])
def test_a_new_plugin_passes_the_checks(gmbench: Call, tmp_path: Path, kind: str, more: list[str]) -> None:
    made = gmbench("new", kind, "my_thing", "--out", "plugins", *more)
    assert made.code == 0 and "plugins/my_thing" in made.out
    checked = gmbench("check", "plugins/my_thing", "--json")
    assert checked.code == 0, checked.out
    assert {result["status"] for result in checked.json} <= {"passed", "skipped"}
    assert f"executing the {kind}" in checked.err


def test_new_model_runs_on_new_task(gmbench: Call, tmp_path: Path) -> None:
    gmbench("new", "model", "my_model")
    gmbench("new", "task", "my_task")
    record = gmbench("run", "--task", "./my_task", "--model", "./my_model", "--track", "smoke", "--json").json
    assert record["status"] == "done" and abs(record["metrics"]["excess_nats.exact"]["value"]) < 0.1


def test_a_new_model_of_tokens_learns_which_word_follows_which(gmbench: Call, tmp_path: Path) -> None:
    made = gmbench("new", "model", "my_model", "--space", "tokens")
    assert "--task pcfg" in made.out
    run = ("run", "--task", "pcfg", "--model", "./my_model", "--track", "smoke", "--json")
    metrics = gmbench(*run, "--set", "num_steps=300").json["metrics"]
    assert 0.3 < metrics["excess_nats.exact"]["value"] < 1.0  # bigrams: 2.20 nats a word where 1.69 are the truth's
    assert "agreement.all" in metrics and "diversity.distinct1.n200" in metrics
    Path("some.txt").write_text("the cat sees a dog\n" * 300)
    stream = ("run", "--task", "text_file:some.txt", "--variant", "context=stream")
    streamed = gmbench(*stream, *run[3:], "--set", "num_steps=20")
    assert streamed.json["headline"] == "word_nats.exact"


def test_a_template_that_is_not_there(gmbench: Call, tmp_path: Path) -> None:
    done = gmbench("new", "model", "my_model", "--space", "token")
    assert done.code == 2 and "no template of it: did you mean 'tokens'? known: binary, tokens" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["My", "../up", "a-b", "1st", ""])
def test_names_are_checked(gmbench: Call, tmp_path: Path, name: str) -> None:
    done = gmbench("new", "model", name)
    assert done.code == 2 and "lower-case letters" in done.err and not list(tmp_path.iterdir())


def test_nothing_is_overwritten(gmbench: Call, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.py").write_text("precious")
    done = gmbench("new", "model", "mine")
    assert done.code == 2 and "exists already" in done.err
    assert (tmp_path / "mine" / "model.py").read_text() == "precious"


def test_check_exits_with_1_when_something_fails(gmbench: Call, tmp_path: Path) -> None:
    gmbench("new", "model", "bad")
    code = tmp_path / "bad" / "model.py"
    code.write_text(code.read_text().replace("num, len(p), generator=rng", "num + 1, len(p), generator=rng"))
    done = gmbench("check", "./bad")
    assert done.code == 1 and "failed   samples are points" in done.out


@pytest.mark.parametrize(("kind", "name"), [("model", "coin_model"), ("model", "made"), ("task", "ising")])
def test_names_that_are_taken(gmbench: Call, tmp_path: Path, kind: str, name: str) -> None:
    done = gmbench("new", kind, name)
    assert done.code == 2 and f"a {kind} is named '{name}' already" in done.err and not list(tmp_path.iterdir())


def test_a_folder_that_is_named_without_its_path(gmbench: Call) -> None:
    gmbench("new", "model", "my_model")
    for verb in (("check", "my_model"), ("show", "my_model"), ("run", "--task", "coin_task", "--model", "my_model")):
        done = gmbench(*verb)
        assert done.code == 2 and "did you mean ./my_model?" in done.err


def test_faults_of_the_search_path(gmbench: Call, tmp_path: Path, coins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{tmp_path / 'nowhere'}:{coins / 'coin_model'}")
    first, second = gmbench("list", "tasks").err.splitlines()
    assert first == f"warning: GMBENCH_PATH names {tmp_path / 'nowhere'}, which is no folder"
    assert "should name the folder that contains it" in second
