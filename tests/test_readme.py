"""The README's model is a model, and its commands are commands."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import gmbench
from gmbench.api import run
from gmbench.cli import main
from gmbench.cli.app import command_line
from gmbench.conformance import check

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_model_of_the_readme_drops_into_the_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "model", "my_model"]) == 0
    path = tmp_path / "my_model" / "model.py"
    before, line, _ = path.read_text().partition("class MyModel(Model):")
    (code,) = blocks("python")
    assert line and code.startswith(line)
    path.write_text(before + code)
    assert [result for result in check("./my_model") if result.status == "failed"] == []
    record = run("synthetic2d", "./my_model", variant="density=moons,n=online", track="smoke")
    assert record.status == "done" and record.headline == "excess_nats.exact"


class _WithoutHints(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        node.returns = None
        return node


def test_the_model_of_the_readme_is_the_templates() -> None:
    (code,) = blocks("python")
    template = Path(gmbench.__file__).parent / "templates" / "model" / "model.py.txt"
    ours = ast.parse(template.read_text().replace("CLASS", "MyModel")).body[-1]
    assert ast.dump(_WithoutHints().visit(ours)) == ast.dump(ast.parse(code).body[0])


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
