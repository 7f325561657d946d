"""What a record says of the machine, the packages and the code that made it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from gmbench.record import Environment

_PACKAGES = ("torch", "lightning-fabric", "torchmetrics", "numpy", "scipy", "scikit-learn", "pydantic", "safetensors")


def environment(device: str, precision: str, threads: int) -> Environment:
    """The environment of this process, for a run on `device`."""
    commit, dirty = git_state(Path(__file__).parents[1])
    on_gpu = device.startswith("cuda")
    return Environment(
        gmbench=importlib.metadata.version("gmbench"),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.machine()}",
        processor=processor(),
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        driver=_driver() if on_gpu else "",
        threads=threads,
        precision=precision,
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def git_state(folder: Path) -> tuple[str, bool]:
    """The commit of the checkout at `folder` and whether tracked files differ from it; ("", False) outside of one."""
    if not (folder / ".git").exists():
        return "", False

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # Records are results, not code: adding one to the leaderboards makes no run dirty.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!leaderboards")
        return git("rev-parse", "HEAD"), bool(changed)
    except OSError:
        return "", False


def processor() -> str:
    """The processor's model name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _driver() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""
