"""The Markdown that records become: deterministic, escaped, and nothing under a name that is not its own."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gmbench.errors import UserError
from gmbench.estimate import Estimate
from gmbench.leaderboard.collect import read_entries, tables_of
from gmbench.leaderboard.generate import pages, ranked_rows, regenerate

NEAR_ONE = [1.0, 1.01, 0.99, 1.02, 0.98]
NASTY = "<script>alert(1)</script> | `rm` \n# *bold* [x](http://y) $z$ @somebody \x00\u202e &lt;b&gt;"


def text_of(boards: Any) -> str:
    regenerate(boards.root)
    return (boards.root / "toy_task.md").read_text(encoding="utf-8")


def lines_of(boards: Any, name: str) -> list[str]:
    return [line for line in text_of(boards).splitlines() if line.startswith("|") and f" {name} " in line]


def names_and_ranks(boards: Any) -> dict[str, int | None]:
    registry = boards.registry()
    card = registry.task("toy_task").card
    found: dict[str, int | None] = {}
    for table in tables_of(card, read_entries(boards.root), registry):
        found |= {one.row.name: one.rank for one in ranked_rows(table, card)}
    return found


def test_regenerating_changes_nothing_the_second_time(realistic: Any) -> None:
    assert [path.name for path in regenerate(realistic.root)] == ["toy_task.md"]
    before = (realistic.root / "toy_task.md").read_bytes()
    assert regenerate(realistic.root) == []
    assert (realistic.root / "toy_task.md").read_bytes() == before


def test_order_of_records_is_irrelevant(realistic: Any) -> None:
    registry, entries = realistic.registry(), read_entries(realistic.root)
    expected = pages(realistic.root, entries, registry)
    random.Random(0).shuffle(entries)
    assert pages(realistic.root, entries, registry) == expected


def test_a_page_says_what_a_reader_needs(realistic: Any) -> None:
    text = text_of(realistic)
    assert text.index("## Overview · small") < text.index("## side=left · small") < text.index("## side=right · small")
    assert "seed 7: loss of stage 'fit' is not a finite number at step 12" in text
    assert "Quoted (not measured here)" in text and "Nobody \\| 1999" in text
    assert "20.5461" in text  # with all the digits of the source
    left_out = text[text.index("Not run (the time of a step") :].splitlines()[4]
    assert [cell.strip() for cell in left_out.split("|")[1:5]] == ["slow", "2.5", "1200", "50"]
    assert "of a \\<i>deep" in left_out or "&lt;i&gt;" in left_out
    assert text.count("Not run (") == 1  # of one variant and track
    assert "gfn.traj20: upper bound, conservative" in text
    assert "nll.floor = 20." in text and text.count("nll.floor") == 2  # once a table
    assert "no distance of beta, alpha, alpha+slow, delta, omniscient: needs sample" in text
    of_truth = [line for line in lines_of(realistic, "omniscient") if "side=" not in line and "reference" in line]
    assert of_truth[0].split("|")[1].strip() == "–"
    # The model whose one seed failed counts six runs, five of them measured.
    [beta] = [line for line in lines_of(realistic, "beta") if "5 of 6" in line]
    assert beta.split("|")[1].strip() == "1"


def test_reference_rows_and_the_smoke_track_are_never_ranked(boards: Any) -> None:
    boards.row("alpha", [5.0, 5.1, 5.2])
    boards.row("omniscient", [0.0, 0.1, 0.2], role="reference")
    boards.row("beta", [0.0, 0.1, 0.2], track="smoke")
    assert names_and_ranks(boards) == {"alpha": 1, "beta": None}
    assert "a track for tests" in text_of(boards)


@pytest.mark.parametrize(
    ("changes", "name", "rank"),
    [
        ({}, "alpha", 1),
        ({"model": "alpha+slow"}, "alpha+slow", 1),
        ({"config": {"rate": 0.7}, "card_config": False}, "alpha (config", 1),
        ({"config": {"rate": 0.7}}, "alpha (config", 1),  # the card has changed since
        ({"model": "alpha+gone"}, "alpha+gone (config", 1),
        ({"model": "unheard_of"}, "unheard_of (plugin not found here)", 1),
        ({"model_version": 2}, "alpha (version 2)", None),
        ({"task_version": 7}, "alpha (task version 7)", None),
        ({"metric_versions": {"gap": 3}}, "alpha (version 3 of the headline metric)", None),
    ],
)
def test_the_plain_name_is_for_the_cards_own(boards: Any, changes: dict[str, Any], name: str, rank: int | None) -> None:
    boards.row(changes.pop("model", "alpha"), NEAR_ONE, **changes)
    found = names_and_ranks(boards)
    if rank is None:
        assert found == {}
        assert f"Of other versions, and not ranked: {name}" in text_of(boards)
    else:
        [(only, got)] = found.items()
        assert only.startswith(name) and (only == name or name.endswith("(config")) and got == rank


def test_half_a_row_measured_again_by_a_newer_metric_is_not_averaged_with_the_rest(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE)
    boards.add("alpha", 8, 55.0, metric_versions={"gap": 2, "nll": 1, "distance": 1})
    assert names_and_ranks(boards) == {"alpha": 1}
    assert "1.000 ± " in text_of(boards)


def test_rows_of_one_name_are_told_apart(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE)
    boards.row("alpha", NEAR_ONE, environment={"device": "Some GPU"})
    first, second = sorted(names_and_ranks(boards))
    assert first.startswith("alpha [Some GPU") and second.startswith("alpha [cpu")


def test_everything_from_a_record_is_escaped(boards: Any) -> None:
    note = {"nll.x": Estimate(value=1.0, kind="exact", note=NASTY), f"nll.{NASTY}": Estimate(value=1.0, kind="exact")}
    boards.row("alpha", NEAR_ONE, metrics=note, unavailable={"distance": NASTY}, config={"rate": NASTY})
    boards.row("beta", [1.0, 2.0], headline=f"gap.{NASTY}", environment={"device": NASTY}, variant=f"side={NASTY}")
    boards.add("gamma", 0, None, status="done", unavailable={"gap": NASTY})
    boards.add("delta", 0, None, status="failed", reason=NASTY)
    text = text_of(boards)
    for bad in ("<script", "</script>", "[x](http", "x](http", "\x00", "\u202e", "@somebody", " `rm`", " $z$"):
        assert bad not in text.replace("\\](", ""), bad
    assert "&amp;lt;b&amp;gt;" in text and "<b>" not in text and text.count("<details>") == text.count("</details>")
    for line in filter(lambda line: line.startswith("|"), text.splitlines()):
        cells = line.replace("\\\\", "").replace("\\|", "").count("|")
        assert cells in (4, 3, 5, 6, 7, 11), line
    # A line that a newline has broken would begin with the rest of the reason.
    assert not any(line.startswith(("# *bold*", "\\# \\*bold")) for line in text.splitlines())


def test_infinite_headlines(boards: Any) -> None:
    boards.row("alpha", [math.inf, 1.0], stderr=None)
    boards.row("beta", [2.0, 2.1])
    assert lines_of(boards, "alpha")[0].split("|")[1].strip() == "2"
    assert "∞" in text_of(boards)


def test_records_of_a_task_that_is_not_there(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE, task="unheard_of")
    with pytest.raises(UserError, match="unheard_of"):
        regenerate(boards.root)


def test_a_task_named_by_a_path_writes_no_file_elsewhere(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE, task=str(boards.plugins / "toy_task"))
    for path in boards.root.parent.rglob("*.json"):
        place = boards.root / "records" / "x" / "y" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)
    with pytest.raises(UserError, match="not a name"):
        regenerate(boards.root)


def test_a_track_and_a_variant_that_the_card_no_longer_has(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE, variant="side=up", track="paper")
    assert "## side=up · paper" in text_of(boards)


def test_damaged_points_are_named(boards: Any) -> None:
    for model in ("alpha", "beta"):
        for seed in range(2):
            boards.add(model, seed, float(seed), points=[1.0, 2.0, 3.0])
    boards.add("beta", 2, 1.0)
    victim = read_entries(boards.root)[0].points_path
    good = victim.read_bytes()
    for content in (b"text", good[:-9], good[:12] + b"\xff\xff" + good[14:]):
        victim.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            read_entries(boards.root)[0].points  # noqa: B018


def test_no_heavy_import(realistic: Any) -> None:
    script = (
        "import sys; from pathlib import Path; from gmbench.leaderboard.check import check;"
        "from gmbench.leaderboard.generate import regenerate;"
        f"assert regenerate(Path({str(realistic.root)!r})); assert check(Path({str(realistic.root)!r})) == [];"
        "heavy = {'numpy', 'scipy', 'torch', 'pandas', 'sklearn', 'lightning_fabric'} & set(sys.modules);"
        "plugins = [m for m in sys.modules if m.startswith(('gmbench.baselines', 'gmbench.tasks', 'gmbench_'))];"
        "assert not heavy and not plugins, (heavy, plugins)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_records_are_read_only_once_a_page(realistic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), original(path))[1])
    regenerate(realistic.root)
    assert len(read) == len(set(read))


def test_what_was_fitted_elsewhere_is_shown_and_not_ranked(boards: Any) -> None:
    """Its records are of one fit, measured with several seeds."""
    boards.row("alpha", NEAR_ONE, subject="external")
    boards.row("mine", NEAR_ONE, subject="samples")
    assert names_and_ranks(boards) == {"alpha (external)": None, "mine (samples)": None}
    assert text_of(boards).count("not ranked: one fit") == 2


def test_better_than_the_truth_is_shown_without_a_rank(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE, stderr=0.1)
    boards.row("beta", [-19.7, -19.8, -19.6], stderr=0.1)
    assert names_and_ranks(boards) == {"alpha": 1, "beta": None}
    assert "not ranked: better than the truth: not a probability distribution" in lines_of(boards, "beta")[0]


def test_a_long_reason_stands_below_the_table(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE)
    for model in ("beta", "gamma"):
        boards.add(model, 0, None, unavailable={"gap": f"needs {'this or that, and ' * 10}more"})
    text = text_of(boards)
    assert all("not ranked (1)" in lines_of(boards, model)[0] for model in ("beta", "gamma"))
    assert text.count("(1) no headline: needs this or that") == 1
    assert len(lines_of(boards, "alpha")[0]) < 200


def test_one_fit_has_the_interval_of_its_test_points(boards: Any) -> None:
    entry = boards.add("alpha", 0, 1.5, stderr=0.1)
    assert "1.50 ± 0.20 †" in lines_of(boards, "alpha")[0]
    record = entry.record
    few = record.metrics[record.headline].model_copy(update={"n": 5})  # t of 4 degrees of freedom
    entry.path.write_text(record.model_copy(update={"metrics": {record.headline: few}}).to_json())
    assert "1.50 ± 0.28 †" in lines_of(boards, "alpha")[0]
    boards.add("alpha", 1, 1.7, stderr=0.1)
    assert "†" not in lines_of(boards, "alpha")[0]


def test_another_unit_of_the_headline_stands_beside_it(boards: Any) -> None:
    card = boards.plugins / "toy_task" / "plugin.toml"
    card.write_text(card.read_text().replace('summary = "likelihoods"', 'summary = "likelihoods"\nbeside = true'))
    for seed, value in enumerate((20.0, 22.0)):
        own = {"nll.exact": Estimate(value=value, stderr=0.1), "nll.other": Estimate(value=99.0, stderr=0.1)}
        boards.add("alpha", seed, 1.0 + seed, metrics=own)
    boards.add("beta", 0, 3.0)
    text = text_of(boards)
    header = next(line for line in text.splitlines() if line.startswith("|   rank"))
    assert [cell.strip() for cell in header.split("|")][4:7] == ["gap ↓ (nats)", "nll", "estimate"]
    assert [cell.strip() for cell in lines_of(boards, "alpha")[0].split("|")][5] == "21"
    assert [cell.strip() for cell in lines_of(boards, "beta")[0].split("|")][5] == "–"


def test_columns_are_in_the_order_of_their_numbers(boards: Any) -> None:
    keys = ("distance.d16", "distance.d4", "distance.d1", "distance.all")
    boards.add("alpha", 0, 1.0, metrics={key: Estimate(value=2.0, stderr=0.1) for key in keys})
    [header] = [line for line in text_of(boards).splitlines() if "d16" in line]
    assert [cell.strip() for cell in header.split("|")][2:6] == ["all", "d1", "d4", "d16"]


def test_quoted_rows_stand_under_the_tracks_whose_protocol_is_comparable(boards: Any) -> None:
    boards.row("alpha", NEAR_ONE, track="smoke")
    assert "Nobody" not in text_of(boards)
    boards.row("alpha", NEAR_ONE)
    text = text_of(boards)
    assert text.count("Nobody") == 1 and text.index("side=left · small") < text.index("Nobody")


def test_every_kind_of_table_says_what_its_interval_is(realistic: Any) -> None:
    text = text_of(realistic)
    sections = text.count("## side=")
    assert text.count("± is half of the 95 % interval") == text.count("± is one standard error") == sections == 2
    assert text.count("with half of its 95 % interval") == text.count("## Overview") == 1


def test_exact_numbers_have_more_digits(boards: Any) -> None:
    floor = {"nll.floor": Estimate(value=20.0371234, kind="exact"),
             "nll.guess": Estimate(value=20.0371234, kind="consistent", note="no error")}  # fmt: skip
    boards.add("alpha", 0, 1.0, metrics=floor)
    text = text_of(boards)
    assert "20.0371 " in text and "20.04 " in text


def test_numbers_of_another_version_of_a_metric_are_left_out(boards: Any) -> None:
    for seed, version in enumerate((1, 1, 7)):
        one = Estimate(value=100.0 if version == 7 else 2.0 + seed, stderr=0.0)
        versions = {"gap": 1, "nll": 1, "distance": version}
        metrics = {"distance.x": one, "nll.x": Estimate(value=5.0 + seed, stderr=0.0), "other": one}
        boards.add("alpha", seed, 1.0 + seed, metrics=metrics, metric_versions=versions)
    text = text_of(boards)
    [distance, nll, other] = next(line for line in text.splitlines() if line.count("±") == 3).split("|")[2:5]
    assert "2.50 ± 0.50" in distance and "2.50 ± 0.50" in other  # which metric made `other` nobody knows
    assert "6.00 ± 0.58" in nll
    assert "- distance of alpha: what another version of the metric measured is left out" in text


def test_the_overview_marks_bounds_and_shows_what_has_no_rank(boards: Any) -> None:
    for variant in ("side=left", "side=right"):
        boards.row("alpha", NEAR_ONE, variant=variant, kind="upper_bound")
        boards.row("beta", [one - 0.5 for one in NEAR_ONE], variant=variant, kind="lower_bound")  # optimistic
    boards.row("gamma", [1.5], variant="side=right")  # one seed
    overview = text_of(boards).partition("## Overview · small")[2].partition("## side=left")[0]
    cells = {}
    for line in overview.splitlines():
        if line.startswith("| ") and not line.startswith("| model"):
            name, _, left, right = (cell.strip() for cell in line.strip("|").split("|"))
            cells[name] = (left, right)
    assert list(cells) == ["alpha", "beta", "gamma"]
    assert all(cell.startswith("**1** · ≤ 1.0") for cell in cells["alpha"])
    assert all(cell.startswith("≥ 0.5") for cell in cells["beta"])
    assert cells["gamma"] == ("–", "1.5")
