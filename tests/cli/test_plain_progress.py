"""Progress off a terminal: a line says something new, or it is not printed."""

from __future__ import annotations

import pytest

from gmbench.progress import LogLines


def test_the_last_step_is_printed_once(caplog: pytest.LogCaptureFixture) -> None:
    lines = LogLines(seconds=3600.0)
    with caplog.at_level("INFO", "gmbench"):
        lines.stage("fit", 3, 0)
        lines.advance(3, {"loss": 0.5})
        lines.advance(3, {"loss": 0.5})
        lines.stage("fine", 3, 0)
        lines.advance(3, {"loss": 0.5})
    assert [line.split()[0:2] for line in caplog.messages] == [
        ["fit:", "3"], ["fit:", "3/3"], ["fine:", "3"], ["fine:", "3/3"],
    ]  # fmt: skip


def test_a_single_step_is_its_name(caplog: pytest.LogCaptureFixture) -> None:
    lines = LogLines(seconds=0.0)
    with caplog.at_level("INFO", "gmbench"):
        lines.stage("count", 1, 0)
        lines.advance(1, {})
    assert caplog.messages == ["count"]
