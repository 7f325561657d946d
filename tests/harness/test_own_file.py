"""`--task name:PATH`: a file of the user's as the data of a task, from its name to the refused submission."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from gmbench import api
from gmbench.data.own_file import card_of_file
from gmbench.errors import UserError
from gmbench.evaluation import evaluate
from gmbench.plan import Plan, Request, make_plan
from gmbench.plugin import OwnFile, TaskCard
from gmbench.record import sha256_of
from gmbench.registry import discover
from gmbench.runner import Options, execute
from gmbench.source import source_digest
from gmbench.submission.adding import add_runs

Call = Callable[..., Any]
TEXT = "".join(f"the {word} sat on the mat and saw the {word}\n" for word in ("cat", "dog", "cow", "hen") * 30)
OTHER = TEXT.replace("mat", "rug")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some" / "Moby Dick.txt"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


def plan_of(path: Path | str, **further: Any) -> Plan:
    return make_plan(Request(f"text_file:{path}", "unigram", track="smoke", **further))


def card() -> TaskCard:
    found = discover().task("text_file").card
    assert isinstance(found, TaskCard)
    return found


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Moby Dick (1851).txt", "moby_dick_1851"),
        ("a.b.txt", "a_b"),
        ("no_suffix", "no_suffix"),
        ("packed.txt.gz", "packed"),
        ("x=1,y=2:z.txt", "x_1_y_2_z"),
        ("../$(rm);`x`|<b>.txt".replace("/", "_"), "rm_x_b"),
        ("東京.txt", "text"),
        (".hidden", "hidden"),
        ("a" * 31 + "-bc.txt", "a" * 31),
        ("q" * 50, "q" * 32),
    ],
)
def test_a_variant_says_which_text_it_is(tmp_path: Path, name: str, stem: str) -> None:
    path = tmp_path / name
    path.write_text(TEXT)
    found = card_of_file(card(), str(path))
    factor = f"text={stem}-{sha256_of(path)[:8]}"
    assert [one.name for one in found.variants] == [f"context=sentence,{factor}", f"context=stream,{factor}"]
    assert found.default_variant == found.variants[0].name == found.variant(factor).name
    assert found.variant("context=stream") is found.variants[1]
    assert [one.tracks for one in found.variants] == [one.tracks for one in card().variants]
    assert TaskCard.model_validate(found.model_dump() | {"argument": ""}).variants == found.variants


def test_what_changes_the_run_and_what_does_not(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = plan_of(text)
    monkeypatch.chdir(text.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(text, tmp_path / text.name)
    for same in (text.name, f"./{text.name}", f"../{text.name}", f"~/{text.name}"):
        assert plan_of(same).fit_id == own.fit_id
    assert plan_of(text, variant="context=stream").fit_id != own.fit_id
    text.with_name("Omoo.txt").write_text(TEXT)
    assert plan_of("Omoo.txt").fit_id != own.fit_id
    text.write_text(OTHER)
    changed = plan_of(text)
    assert changed.fit_id != own.fit_id and changed.folder != own.folder
    assert changed.data_sha256 == {"text": sha256_of(text)} != own.data_sha256
    assert str(tmp_path) not in str(own.identity)
    with pytest.raises(UserError, match=f"no variant '{own.variant.name}': did you mean '{changed.variant.name}'"):
        plan_of(text, variant=own.variant.name)


def test_the_code_of_the_task_is_the_same_for_every_text(text: Path) -> None:
    registry = discover()
    digests = {source_digest(registry.task("text_file"))}
    for content in (TEXT, OTHER):
        text.write_text(content)
        digests.add(source_digest(registry.task(f"text_file:{text}")))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "names no file"),
        ("none.txt", "no file .*/none.txt"),
        ("folder", "folder is a folder"),
        ("pipe", "pipe is no file to read twice"),
        ("~nobody_has_this_home/a", "nobody_has_this_home"),
        ("huge.txt", "longer than 1,073,741,824 bytes: give a part of it"),
    ],
)
def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing, which would take minutes to read
    with pytest.raises(UserError, match=expected) as caught:
        plan_of(path)
    assert "\n" not in str(caught.value)


def test_without_a_path_the_form_is_said_and_cards_are_shown(gmbench: Call) -> None:
    for words in (("run", "--model", "unigram"), ("score", "--samples", "x.npy")):
        done = gmbench(*words, "--task", "text_file")
        assert done.code == 2
        assert done.err == "error: text_file is about a text of your own: --task text_file:PATH\n"
    with pytest.raises(UserError, match="text_file:PATH"):
        api.run("text_file", "unigram")
    for verb in (("list", "tasks"), ("show", "text_file"), ("data", "list", "text_file"), ("data", "list")):
        assert gmbench(*verb).code == 0
    assert "text_file" in gmbench("list", "tasks").out
    assert "no task is named 'pcfg:a.txt'" in gmbench("run", "--task", "pcfg:a.txt", "--model", "unigram").err


def test_a_run_from_the_command_line(gmbench: Call, text: Path, tmp_path: Path) -> None:
    command = ("run", "--task", f"text_file:{text}", "--model", "unigram", "--track", "smoke")
    shown = gmbench(*command, "--variant", "all", "--dry-run", "--json").json
    assert [one["state"] for one in shown] == ["not started"] * 2
    done = gmbench(*command)
    assert done.code == 0 and "* word_nats.exact" in done.out and "shipped" not in done.out
    assert shown[0]["fit_id"] in done.out
    first = gmbench(*command, "--json")
    assert "already done" in first.err
    again = gmbench(*shlex.split(first.json["command"])[1:], "--json", "--remeasure").json
    assert again["fit_id"] == first.json["fit_id"] and again["metrics"] == first.json["metrics"]
    of_python = api.run(f"text_file:{text}", "unigram", track="smoke", out=tmp_path / "runs")
    (path,) = (tmp_path / "runs" / "text_file" / "unigram").glob("*/record.json")
    assert path.parent.name == of_python.fit_id and path.read_text() == of_python.to_json()
    assert of_python.data_sha256 == {"text": sha256_of(text)} and of_python.fit_id == again["fit_id"]
    assert gmbench("data", "path", f"text_file:{text}").out == f"{text}\n"
    assert gmbench("data", "verify", f"text_file:{text}").out == "text_file  text  ok\n"


def test_a_text_of_ones_own_makes_no_row(text: Path, tmp_path: Path) -> None:
    record = api.run(f"text_file:{text}", "unigram", track="smoke", out=tmp_path / "runs")
    root = tmp_path / "leaderboards"
    root.mkdir()
    with pytest.raises(UserError, match=r"record\.json: text_file is about a text of the user's own: nobody else has"):
        add_runs([tmp_path / "runs" / "text_file" / "unigram" / record.fit_id], root)
    assert not list(root.iterdir())


def test_a_model_from_elsewhere_is_measured_on_it(text: Path, tmp_path: Path) -> None:
    class Even:
        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return -(x != 0).sum(1) * math.log(2)

    record = evaluate(Even(), task=f"text_file:{text}", track="smoke", out=tmp_path / "runs")
    assert record.variant.startswith("context=sentence,text=moby_dick-") and record.subject == "external"
    assert record.metrics["word_nats.exact"].value == pytest.approx(math.log(2))
    with pytest.raises(UserError, match="text_file:PATH"):
        evaluate(Even(), task="text_file", out=tmp_path / "runs")


def test_a_text_that_changes_is_read_anew(text: Path, tmp_path: Path) -> None:
    """In one process, where texts that were read are kept."""
    other = tmp_path / "other" / text.name
    other.parent.mkdir()
    other.write_text(OTHER + "a longer text\n" * 50)
    out = tmp_path / "runs"
    expected = api.run(f"text_file:{other}", "unigram", track="smoke", out=out)
    before = api.run(f"text_file:{text}", "unigram", track="smoke", out=out)
    text.write_bytes(other.read_bytes())
    after = api.run(f"text_file:{text}", "unigram", track="smoke", out=tmp_path / "elsewhere")
    assert after.metrics == expected.metrics != before.metrics and after.fit_id == expected.fit_id


@pytest.mark.parametrize("change", [lambda path: path.write_text(OTHER), lambda path: path.unlink()])
def test_a_text_that_changes_under_a_plan(text: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    plan = plan_of(text, out=tmp_path / "runs")
    change(text)
    with pytest.raises(UserError, match=r"Moby Dick\.txt was changed or removed after the run was planned"):
        execute(plan, Options())
    assert not plan.folder.exists()


def test_a_card_with_an_argument_has_no_other_data(text: Path) -> None:
    plain = card().model_dump()
    own = OwnFile(path="text", sha256="0" * 64, place=text).model_dump(exclude={"place"})
    for faulty in ({"data": [own]}, {"argument": "context"}):
        with pytest.raises(ValidationError, match="the user's file is the only data, and makes the factor"):
            TaskCard.model_validate(plain | faulty)
