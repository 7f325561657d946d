"""Real kills: a run that died at arbitrary moments ends with the numbers of an undisturbed one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUN = ("run", "--task", "coin_task", "--model", "coin_model", "--set", "num_steps=80")
SLOW = ("--set", "seconds_a_step=0.01")
# A checkpoint at every step, so that a kill meets the writing of one as often as not.
PROGRAM = """
import functools, sys
from gmbench import runner
from gmbench.cli import main
runner.Trainer = functools.partial(runner.Trainer, checkpoint_seconds=0.0)
sys.exit(main(sys.argv[1:]))
"""
Call = Callable[..., Any]


def start_and_signal(folder: Path, number: int, after: int) -> tuple[int, str]:
    """Runs the slow model until `after` more checkpoints were seen, sends the signal; exit code and standard error."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *RUN, *SLOW],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen: set[tuple[Path, int]] = set()
    while process.poll() is None and len(seen) < after:
        time.sleep(0.005)  # leaves the processor to the run
        for path in folder.glob("runs/*/*/*/checkpoint.pt"):
            try:
                seen.add((path, path.stat().st_mtime_ns))
            except FileNotFoundError:  # between two renames
                continue
    os.kill(process.pid, number)
    _, err = process.communicate()
    return process.returncode, err


def test_killed_twice_and_undisturbed_agree_bit_for_bit(gmbench: Call, tmp_path: Path) -> None:
    for after in (15, 30):
        code, _ = start_and_signal(tmp_path, signal.SIGKILL, after)
        assert code == -signal.SIGKILL
    resumed = gmbench(*RUN, *SLOW, "--json")
    assert resumed.json["cost"]["resumes"] == 2 and "resuming" in resumed.err
    undisturbed = gmbench(*RUN, *SLOW, "--json", "--out", "elsewhere").json
    assert undisturbed["cost"]["resumes"] == 0
    for name in ("metrics", "headline", "points_sha256", "artifacts", "fit_id"):
        assert resumed.json[name] == undisturbed[name]
    for name in ("steps", "examples"):
        assert resumed.json["cost"][name] == undisturbed["cost"][name]


def test_ctrl_c_says_the_command_that_resumes(gmbench: Call, tmp_path: Path) -> None:
    code, err = start_and_signal(tmp_path, signal.SIGINT, 10)
    assert code == 130
    line = next(line for line in err.splitlines() if line.startswith("interrupted; this resumes it: "))
    assert "Traceback" not in err
    words = shlex.split(line.removeprefix("interrupted; this resumes it: "))
    assert words[0] == "gmbench"
    resumed = gmbench(*words[1:], "--json").json
    assert resumed["status"] == "done" and resumed["cost"]["resumes"] == 1 and resumed["cost"]["steps"] == 160
