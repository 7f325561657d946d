"""Digits that follow the interval, text that is shown as it is, tables of one shape."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmbench.leaderboard.markdown import escape, link, number, table


@pytest.mark.parametrize(
    ("value", "uncertainty", "text"),
    [
        (4.26113, 0.0123, "4.261 ± 0.012"),
        (4.26113, 0.99, "4.26 ± 0.99"),
        (4.26113, 12.3, "4 ± 12"),
        (-0.5, 0.0996, "-0.500 ± 0.100"),
        (1234.5678, 123.0, "1235 ± 123"),
        (0.0000123456, 0.00000012, "(1.235 ± 0.012)e-05"),
        (0.0001, 0.2, "0.00 ± 0.20"),
        (1e7, 1e4, "(1.0000 ± 0.0010)e+07"),
        (4.26113, None, "4.261"),
        (4.26113, 0.0, "4.26113"),
        (3.912023005, 4e-17, "3.91202"),
        (20.0371234, 0.0, "20.0371"),
        (4.26113, math.inf, "4.261"),
        (0.000123456, None, "0.0001235"),
        (math.inf, None, "∞"),
        (-math.inf, 1.0, "−∞"),
    ],
)
def test_number(value: float, uncertainty: float | None, text: str) -> None:
    assert number(value, uncertainty) == text


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e9))
def test_what_is_printed_is_the_value_within_a_tenth_of_its_uncertainty(value: float, uncertainty: float) -> None:
    if uncertainty <= 1e-9 * abs(value):  # of rounding errors only
        assert "±" not in number(value, uncertainty)
        return
    found = re.fullmatch(r"\(?(-?[\d.]+) ± ([\d.]+)(?:\)(e[+-]\d+))?", number(value, uncertainty))
    assert found
    scale = float(f"1{found[3] or 'e0'}")
    if uncertainty > 1e-8 * abs(value):
        assert abs(float(found[1]) * scale - value) <= 0.051 * uncertainty + 0.5 * (uncertainty >= 10)
        assert float(found[2]) * scale == pytest.approx(uncertainty, rel=0.051)


@given(st.text())
def test_escaped_text_is_one_harmless_line(text: str) -> None:
    found = escape(text).replace("&#64;", "")
    assert len(found.splitlines()) <= 1 and "<" not in found and ">" not in found
    assert not re.search(r"(?<!\\)(\\\\)*[|`*_\[\]#~$]", found)


def test_link_cannot_be_left() -> None:
    assert link("a]b", "x/y z)|.json") == r"[a\]b](x/y%20z%29%7C.json)"


def test_table() -> None:
    assert table(["a", "long"], [["1", "x"], ["22222", "y"]], right=[0]).splitlines() == [
        "|     a | long   |",
        "|------:|:-------|",
        "|     1 | x      |",
        "| 22222 | y      |",
    ]
    assert table(["a"], []).splitlines()[0] == "| a   |"
