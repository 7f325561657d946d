"""The README's model is a model, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gmbench.cli.app import command_line
from gmbench.conformance import check

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
IMPORTS = """
import torch
from pydantic import Field

from gmbench.model import Config as BaseConfig
from gmbench.model import Model
from gmbench.training import Call
"""
CARD = """
kind = "model"
name = "independent_bits_of_the_readme"
version = 1
summary = "Independent bits"
entry = "model:IndependentBits"
family = "other"
licence = "Apache-2.0"
accepts = ["binary"]
only_tasks = ["ising"]
capabilities = ["sample"]
config = { smoothing = 1.0 }
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_model_of_the_readme_conforms(tmp_path: Path) -> None:
    (code,) = blocks("python")
    folder = tmp_path / "independent_bits_of_the_readme"
    folder.mkdir()
    (folder / "plugin.toml").write_text(CARD)
    (folder / "model.py").write_text(IMPORTS + "\n\n" + code)
    failed = [result for result in check(str(folder)) if result.status == "failed"]
    assert not failed


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if "gmbench " in line]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_parse(line: str) -> None:
    words = shlex.split(line.rpartition("&& ")[2], comments=True)
    start = next(i for i, word in enumerate(words) if word.endswith("gmbench"))
    verb, *arguments = words[start + 1 :]
    group = command_line()
    context = group.make_context("gmbench", ["--help"], resilient_parsing=True)
    command = group.get_command(context, verb)
    assert command is not None, f"no verb {verb}"
    command.make_context(verb, arguments)  # raises on an unknown option
