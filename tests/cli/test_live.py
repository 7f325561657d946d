"""Progress on a terminal and elsewhere, and what the tables of a run say."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from gmbench.cli.live import Live
from gmbench.cli.result import result_table
from gmbench.cli.seeds import parse_seeds
from gmbench.progress import LogLines


def test_a_live_line_a_stage() -> None:
    screen = io.StringIO()
    live = Live(Console(file=screen, force_terminal=True, width=100))
    live.stage("warm up", 10, 4)
    live.advance(10, {"loss": 0.125})
    live.message("something [bold]odd")
    live.stage("fit", 1000, 0)
    live.advance(250, {"loss": 0.5, "accept": 0.25})
    live.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    last = shown.replace("\r", "\n").splitlines()
    assert any("warm up" in line and "10/10" in line and "/s" in line and "loss 0.125" in line for line in last)
    assert any("fit" in line and "250/1000" in line and "accept 0.25" in line for line in last)
    assert "something [bold]odd" in shown


def test_plain_lines_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    lines = LogLines(seconds=3600.0)
    with caplog.at_level("INFO", "gmbench"):
        lines.stage("fit", 3, 0)
        for done in (1, 2, 3):
            lines.advance(done, {"loss": 0.5})
    assert [line.split()[1] for line in caplog.messages] == ["3", "3/3"]  # the begin and the end, nothing between


def test_a_table_fits_80_columns() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    table = result_table("", "metric", "value", "kind", "n", "")
    key = "correlation_rmse_of_every_pair.n4000.null"
    table.add_row("*", key, "-0.000123 ± 0.000045", "upper_bound", "100000", "(12)")
    console.print(table)
    lines = screen.getvalue().splitlines()
    assert "(12)" in lines[1] and "100000" in lines[1] and "-0.000123 ± 0.000045" in lines[1]
    assert "".join(line.split()[-1] if i else line.split()[1] for i, line in enumerate(lines[1:])) == key


def test_seeds() -> None:
    assert parse_seeds("3") == [3] and parse_seeds("0..4") == [0, 1, 2, 3, 4]
    assert parse_seeds("0,2,5") == [0, 2, 5] and parse_seeds("0..2,2..3") == [0, 1, 2, 3]


@pytest.mark.parametrize("arguments", [["list"], ["show", "ising"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    program = "import sys; from gmbench.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.wait()
    assert process.stderr.read() == b""
