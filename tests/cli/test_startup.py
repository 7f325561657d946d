"""What answering a question about cards costs: no torch, numpy, pandas, scipy, and no plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "lightning_fabric", "rich")
LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
PROGRAM = """
import sys
from gmbench.cli import main
code = main(sys.argv[1:])
loaded = {name.partition(".")[0] for name in sys.modules}
plugins = {name for name in sys.modules if name.startswith(("gmbench.tasks.", "gmbench.baselines.", "gmbench_plugin_"))}
print("GMBENCH", code, *sorted(loaded & set(%r)), *sorted(plugins), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["show", "ising"], ["leaderboard", "--check"]], ids=" ".join
)
def test_light_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM % (HEAVY,), *arguments], capture_output=True, text=True)
    *_, last = done.stderr.strip().split("GMBENCH ")
    code, *imported = last.split()
    assert imported == []
    assert code in ("0", "1") if arguments[0] == "leaderboard" else code == "0", done.stderr
