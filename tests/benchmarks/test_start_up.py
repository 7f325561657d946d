"""CPU time of the verbs that only read cards and records (select with -m benchmark); the target is about 0.15 s."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from typing import Any

import pytest

COMMANDS = ["--help", "list", "show ising", "leaderboard --check"]


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.benchmark
@pytest.mark.parametrize("words", COMMANDS)
def test_start_up(benchmark: Any, words: str) -> None:
    command = [sys.executable, "-c", "import sys; from gmbench.cli import main; sys.exit(main())", *words.split()]
    cpu_seconds = []

    def call() -> None:
        before = children_seconds()
        done = subprocess.run(command, capture_output=True, check=False)
        cpu_seconds.append(children_seconds() - before)
        # A stale leaderboard is another test's concern.
        assert done.returncode == 0 or words.startswith("leaderboard"), done.stderr.decode()

    benchmark.pedantic(call, rounds=7, warmup_rounds=1)
    benchmark.extra_info["cpu_seconds"] = statistics.median(cpu_seconds[1:])
