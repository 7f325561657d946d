"""What `gmbench leaderboard --check` finds, and what it lets pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gmbench.errors import UserError
from gmbench.leaderboard.check import check
from gmbench.leaderboard.collect import read_entries
from gmbench.leaderboard.generate import regenerate
from gmbench.registry import discover
from gmbench.source import source_digest


@pytest.fixture
def tidy(boards: Any) -> Any:
    """Two rows with points and source digests, and the page made from them."""
    registry = discover()
    task = source_digest(registry.task("toy_task"))
    for model in ("alpha", "beta"):
        digests = {"task": task, "model": source_digest(registry.model(model))}
        for seed in range(3):
            boards.add(model, seed, float(seed), points=[seed - 1.0, seed + 1.0], source_sha256=digests)
    regenerate(boards.root)
    assert check(boards.root) == []
    return boards


def only(problems: list[str]) -> str:
    [problem] = problems
    return problem


def test_stale_missing_and_superfluous_pages(tidy: Any) -> None:
    page = tidy.root / "toy_task.md"
    text = page.read_text()
    page.write_text(text + "\n")
    assert only(check(tidy.root)) == "toy_task.md is stale: run `gmbench leaderboard`"
    page.unlink()
    assert only(check(tidy.root)) == "toy_task.md is missing: run `gmbench leaderboard`"
    page.write_text(text)
    (tidy.root / "README.md").write_text("kept")
    (tidy.root / "former.md").write_text(text)
    assert only(check(tidy.root)) == "former.md has no records"


def test_a_new_record_makes_the_page_stale(tidy: Any) -> None:
    tidy.add("gamma", 0, 3.0)
    assert "toy_task.md is stale" in only(check(tidy.root))


def test_an_unreadable_record_is_named_and_the_others_are_still_checked(tidy: Any) -> None:
    first, second, *_ = read_entries(tidy.root)
    first.path.write_text(first.path.read_text()[:100])
    second.points_path.write_bytes(b"")
    problems = check(tidy.root)
    assert len(problems) == 2
    assert str(first.path) in problems[0] and "not a valid record" in problems[0]
    assert str(second.points_path) in problems[1] and "damaged" in problems[1]


def test_points(tidy: Any) -> None:
    entry = read_entries(tidy.root)[0]
    good = entry.points_path.read_bytes()
    entry.points_path.write_bytes(good + b"\0")
    assert "SHA-256 is not the record's" in only(check(tidy.root))
    entry.points_path.unlink()
    assert "is missing" in only(check(tidy.root))
    entry.points_path.write_bytes(good)
    stray = entry.path.with_name("0123456789ab.points.f32.gz")
    stray.write_bytes(good)
    assert only(check(tidy.root)) == f"{stray} has no record"


@pytest.mark.parametrize("place", ["alpha/000000000000", "beta/same", "../other/alpha/same"])
def test_a_misplaced_record(tidy: Any, place: str) -> None:
    entry = read_entries(tidy.root)[0]
    path = (entry.path.parents[1] / f"{place.replace('same', entry.path.stem)}.json").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    entry.path.rename(path)
    entry.points_path.rename(path.with_name(entry.points_path.name.replace(entry.path.stem, path.stem)))
    assert only(check(tidy.root)) == f"{path}: the record inside is toy_task/alpha/{entry.record.fit_id}"


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("alpha/model.py", "rate = 1", "rate = 1  # a comment", None),
        ("alpha/model.py", "class Toy:\n", 'class Toy:\n    """A docstring."""\n', None),
        ("alpha/model.py", "rate = 1", "rate = 2", "the model alpha changed"),
        ("alpha/plugin.toml", "A model of this test", "A better summary", None),
        ("alpha/plugin.toml", '["sample"]', '["sample", "energy"]', "the model alpha changed"),
        ("toy_task/task.py", "rate = 1", "rate = 2", "the task toy_task changed"),
    ],
)
def test_code_that_changed_without_its_version(
    tidy: Any, file: str, old: str, new: str, expected: str | None
) -> None:
    path: Path = tidy.plugins / file
    path.write_text(path.read_text().replace(old, new))
    regenerate(tidy.root)
    problems = check(tidy.root)
    if expected is None:
        assert problems == []
        return
    assert expected in only(problems) and "version is still 1" in problems[0]
    manifest = path.with_name("plugin.toml")
    manifest.write_text(manifest.read_text().replace("version = 1", "version = 2", 1))
    assert "is stale" in only(check(tidy.root))
    regenerate(tidy.root)
    assert check(tidy.root) == []


def test_a_new_version_of_a_metric_excuses_the_task(tidy: Any) -> None:
    path = tidy.plugins / "toy_task" / "task.py"
    path.write_text(path.read_text().replace("rate = 1", "rate = 2"))
    manifest = path.with_name("plugin.toml")
    manifest.write_text(manifest.read_text().replace('summary = "of samples"', 'summary = "of samples"\nversion = 2'))
    regenerate(tidy.root)
    assert check(tidy.root) == []


def test_a_task_that_is_not_there_is_a_problem_and_no_crash(tidy: Any) -> None:
    tidy.add("alpha", 0, 1.0, task="unheard_of")
    assert only(check(tidy.root)).startswith("the plugin unheard_of of 1 record is not found here")


def test_a_plugin_that_is_not_found_is_named_and_the_page_is_left_alone(tidy: Any) -> None:
    page = tidy.root / "toy_task.md"
    before = page.read_bytes()
    (tidy.plugins / "alpha").rename(tidy.plugins.parent / "alpha")
    told = "the plugin alpha of 3 records is not found here: set GMBENCH_PATH to the folder that contains the model's"
    assert only(check(tidy.root)).startswith(told)
    with pytest.raises(UserError, match="no table was written: the plugin alpha of 3 records"):
        regenerate(tidy.root)
    assert page.read_bytes() == before
    (tidy.plugins.parent / "alpha").rename(tidy.plugins / "alpha")
    manifest = tidy.plugins / "alpha" / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("capabilities", "abilities"))
    assert "has a broken manifest" in only(check(tidy.root))  # and not that it is not there


def test_what_was_fitted_elsewhere_needs_no_plugin(tidy: Any) -> None:
    tidy.add("mine", 0, 1.0, subject="external")
    regenerate(tidy.root)
    assert check(tidy.root) == []


def test_a_number_better_than_that_of_the_truth(tidy: Any) -> None:
    entry = tidy.add("gamma", 0, -19.7, stderr=0.1)
    tidy.add("gamma", 1, -0.3, stderr=0.1)  # chance
    tidy.add("gamma", 2, -5.0, stderr=0.1, kind="lower_bound")  # optimistic, and said to be
    tidy.add("gamma", 3, -5.0, stderr=0.1, metric_versions={"gap": 2, "nll": 1, "distance": 1})
    tidy.add("mine", 0, -5.0, subject="external")
    regenerate(tidy.root)
    told = "gap.exact is -19.7, better than the truth: not a probability distribution, or an error"
    assert only(check(tidy.root)) == f"{entry.path}: {told}"


def test_nothing_to_check(tmp_path: Path) -> None:
    assert check(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 7}, "fit_id is"),
        ({"config": {"rate": 0.25}}, "row_id is"),
        ({"metric_versions": {"gap": 2, "nll": 1, "distance": 1}}, "record_id is"),
        ({"headline": "gap.better"}, "the headline 'gap.better' is not among the metrics"),
        ({"metrics": {"gap.exact": {"value": -1.0, "stderr": 0.0}}}, "the headline is -1, and its values"),
        ({"status": "failed"}, "failed, and yet it has metrics"),
    ],
)
def test_a_record_that_was_changed_by_hand(tidy: Any, changes: dict[str, Any], expected: str) -> None:
    entry = read_entries(tidy.root)[0]
    entry.path.write_text(json.dumps(json.loads(entry.path.read_text()) | changes))
    problems = check(tidy.root)
    assert all(str(entry.path) in problem for problem in problems)
    assert any(expected in problem for problem in problems)
