"""Ranks: errors at their level, power from pairing, and what is never ranked."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmbench.consistency import BEATS_THE_TRUTH
from gmbench.leaderboard.collect import Row
from gmbench.leaderboard.rank import Ranked, rank
from gmbench.plugin import MetricCard

Make = Callable[..., Row]
LOWER = MetricCard(summary="", direction="lower")
HIGHER = MetricCard(summary="", direction="higher")


def ranks(found: list[Ranked]) -> dict[str, int | None]:
    return {one.row.name: one.rank for one in found}


@pytest.mark.parametrize(("num_rows", "num_seeds"), [(2, 5), (5, 5), (10, 3), (10, 8)])
def test_rows_equal_in_expectation_share_a_rank(row_of: Make, num_rows: int, num_seeds: int) -> None:
    rng, num_repeats, separated = random.Random(num_rows), 400, 0
    for _ in range(num_repeats):
        luck = [rng.gauss(0, 3) for _ in range(num_seeds)]
        rows = [row_of(f"m{i}", [x + rng.gauss(0, 1) for x in luck], stderr=None) for i in range(num_rows)]
        separated += len(set(ranks(rank(rows, LOWER)).values())) > 1
    # The level is 0.05; three standard errors of 400 repetitions are 0.033.
    assert separated / num_repeats < 0.05 + 0.033


def test_points_that_all_seeds_share_are_uncertain_too(row_of: Make) -> None:
    """Equal rows whose difference is only the luck of the test points: seeds alone would separate them each time."""
    rng, separated, num_repeats = random.Random(3), 0, 150
    for _ in range(num_repeats):
        rows = []
        for name in ("one", "two"):
            noise = [rng.gauss(0, 1) for _ in range(200)]
            points = [[x + rng.gauss(0, 0.01) for x in noise] for _ in range(5)]
            rows.append(row_of(name, [math.fsum(p) / 200 for p in points], points))
        separated += len(set(ranks(rank(rows, LOWER)).values())) > 1
    assert separated / num_repeats < 0.1


def test_a_difference_that_only_pairing_shows(row_of: Make) -> None:
    luck = [0.0, 5.0, -4.0, 9.0, 2.0]
    jitter = [0.001, -0.002, 0.0, 0.001, 0.002]
    better = row_of("better", luck)
    worse = row_of("worse", [x + 0.1 + e for x, e in zip(luck, jitter, strict=True)])
    assert ranks(rank([worse, better], LOWER)) == {"better": 1, "worse": 2}
    # The same numbers on other seeds cannot be paired.
    for entry in worse.done:
        object.__setattr__(entry, "record", entry.record.model_copy(update={"seed": entry.record.seed + 10}))
    del worse.by_seed
    assert ranks(rank([worse, better], LOWER)) == {"better": 1, "worse": 1}


@pytest.mark.parametrize(("shared", "expected"), [(True, 2), (False, 1)])
def test_pairing_over_points(row_of: Make, shared: bool, expected: int) -> None:
    rng = random.Random(0)
    noise = [rng.gauss(0, 1) for _ in range(400)]
    other = noise if shared else [rng.gauss(0, 1) for _ in range(400)]
    centred, others = ([x - math.fsum(xs) / 400 for x in xs] for xs in (noise, other))
    jitter = [0.0, 0.001, -0.001, 0.002, -0.002]
    rows = [
        row_of("better", jitter, [[x + e for x in centred] for e in jitter], stderr=0.05),
        row_of("worse", [0.1 - e for e in jitter], [[x + 0.1 - e for x in others] for e in jitter], stderr=0.05),
    ]
    assert ranks(rank(rows, LOWER)) == {"better": 1, "worse": expected}


def test_without_points_the_standard_errors_count(row_of: Make) -> None:
    values = [0.0, 0.001, -0.001, 0.002, -0.002]
    others = [0.1 - value for value in values]
    assert ranks(rank([row_of("a", values), row_of("b", others)], LOWER)) == {"a": 1, "b": 2}
    noisy = [row_of("a", values, stderr=0.05), row_of("b", others, stderr=0.05)]
    assert ranks(rank(noisy, LOWER)) == {"a": 1, "b": 1}
    # Points of different length are of different test sets.
    points = [row_of("a", values, [[0.0] * 9] * 5, stderr=0.05), row_of("b", others, [[0.1] * 8] * 5, stderr=0.05)]
    assert ranks(rank(points, LOWER)) == {"a": 1, "b": 1}


def test_groups_and_direction(row_of: Make) -> None:
    jitter = [0.0, 0.01, -0.01, 0.02, -0.02]
    levels = {"a": (0.0, 1), "b": (0.001, -1), "c": (1.0, 1), "d": (1.001, -1), "e": (3.0, 1)}
    rows = [row_of(name, [level + sign * x for x in jitter]) for name, (level, sign) in levels.items()]
    assert ranks(rank(rows, LOWER)) == {"a": 1, "b": 1, "c": 3, "d": 3, "e": 5}
    assert ranks(rank(rows, HIGHER)) == {"e": 1, "c": 2, "d": 2, "a": 4, "b": 4}


def test_equal_numbers_share_and_constant_differences_separate(row_of: Make) -> None:
    rows = [row_of("a", [1.0, 2.0]), row_of("b", [1.0, 2.0]), row_of("c", [2.0, 3.0])]
    assert ranks(rank(rows, LOWER)) == {"a": 1, "b": 1, "c": 3}


def test_a_row_that_is_not_worse_on_the_shared_seeds_is_not_separated(row_of: Make) -> None:
    short = row_of("short", [1.0, 1.01, 1.02])
    long = row_of("long", [0.9, 0.91, 0.92, 5.0, 5.01])
    assert ranks(rank([short, long], LOWER)) == {"short": 1, "long": 1}


def test_what_is_not_ranked(row_of: Make) -> None:
    rows = [
        row_of("good", [1.0, 1.1, 1.2]),
        row_of("alone", [0.5]),
        row_of("elsewhere", [0.6, 0.6, 0.6], subject="external"),
        row_of("flattered", [0.1, 0.2, 0.3], kind="lower_bound"),
        row_of("bounded", [1.0, 1.1, 1.2], kind="upper_bound"),
        row_of("silent", [None, None], unavailable={"gap": "no normaliser"}),  # type: ignore[list-item]
        row_of("infinite", [math.inf, 2.0, 1.0]),
        row_of("endless", [math.inf, math.inf, math.inf]),
    ]
    found = rank(rows, LOWER, "gap")
    assert [(one.row.name, one.rank, one.reason) for one in found] == [
        ("bounded", 1, ""),
        ("good", 1, ""),
        ("endless", 3, ""),
        ("infinite", 3, ""),
        ("flattered", None, "optimistic estimate"),
        ("alone", None, "one seed"),
        ("elsewhere", None, "one fit"),
        ("silent", None, "no headline: no normaliser"),
    ]
    # What flatters depends on the direction.
    assert ranks(rank([rows[3], rows[4]], HIGHER)) == {"flattered": 1, "bounded": None}


def test_seeds_with_different_estimators_are_not_one_row(row_of: Make) -> None:
    row = row_of("mixed", [1.0, 1.1])
    other = row_of("mixed", [1.0, 1.1, 1.2], headline="gap.ais")
    mixed = type(row)("mixed", row.entries + other.entries[2:])
    assert rank([mixed], LOWER)[0].reason == "its seeds have different estimators"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=4), max_size=6), st.randoms())
def test_order_of_rows_is_irrelevant_and_ranks_are_places(
    row_of: Make, values: list[list[float]], rng: random.Random
) -> None:
    rows = [row_of(f"m{i}", list(each)) for i, each in enumerate(values)]
    found = rank(list(rows), LOWER)
    rng.shuffle(rows)
    assert ranks(rank(rows, LOWER)) == ranks(found)
    assert all(one.rank is not None and one.rank <= place for place, one in enumerate(found, start=1))
    assert [one.rank for one in found] == sorted(one.rank or 0 for one in found)
    if found:
        assert found[0].rank == 1


EXCESS = MetricCard(summary="", direction="lower", null=0.0)


@pytest.mark.parametrize("kind", ["exact", "unbiased", "consistent", "upper_bound"])
def test_better_than_the_truth_is_shown_and_not_ranked(row_of: Make, kind: str) -> None:
    rows = [
        row_of("honest", [0.3, 0.31, 0.32], kind=kind, stderr=0.02),
        row_of("unnormalised", [-19.7, -19.8, -19.6], kind=kind, stderr=0.02),
        row_of("once", [0.3, 0.31, -0.5], kind=kind, stderr=0.02),
        row_of("lucky", [-0.05, -0.04, -0.03], kind=kind, stderr=0.02),  # within three standard errors
        row_of("rounded", [-5e-5, 0.0, 1e-5], kind=kind, stderr=0.0),
    ]
    found = {one.row.name: (one.rank is None, one.reason) for one in rank(rows, EXCESS)}
    impossible, ranked = (True, BEATS_THE_TRUTH), (False, "")
    assert found == {
        "honest": ranked, "unnormalised": impossible, "once": impossible, "lucky": ranked, "rounded": ranked,
    }  # fmt: skip


def test_what_may_be_better_than_the_truth(row_of: Make) -> None:
    below = [-1.0, -1.1, -1.2]
    assert [one.reason for one in rank([row_of("a", below, kind="lower_bound")], EXCESS)] == ["optimistic estimate"]
    assert ranks(rank([row_of("a", below)], LOWER)) == {"a": 1}  # the card states no null
    assert ranks(rank([row_of("a", below, stderr=None)], EXCESS)) == {"a": 1}  # of unknown error
    score = MetricCard(summary="", direction="higher", null=math.inf)
    assert ranks(rank([row_of("a", [5.0, math.inf])], score)) == {"a": 1}
    capped = MetricCard(summary="", direction="higher", null=-2.0)
    assert rank([row_of("a", below)], capped)[0].reason == BEATS_THE_TRUTH
