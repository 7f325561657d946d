"""The set of commands and options, held here so that it grows on purpose."""

from __future__ import annotations

from typing import Any

from gmbench.cli.app import VERBS, LazyGroup, command_line

EXPECTED = {
    "run": "--task --model --variant --track --seed --device --precision --threads --set --out --dry-run --remeasure "
    "--with-inputs --json --force --deterministic --debug",
    "list": "what --json --debug",
    "show": "name --json --debug",
    "data list": "task --debug",
    "data status": "task --debug",
    "data fetch": "task --debug",
    "data verify": "task --debug",
    "data path": "task --debug",
    "check": "plugin --json --debug",
    "new model": "name --out --space --debug",
    "new task": "name --out --debug",
    "score": "--task --samples --variant --track --name --seed --out --json --debug",
    "submit": "runs --to --debug",
    "leaderboard": "--check --at --debug",
}


def test_the_options_are_these() -> None:
    group = command_line()
    assert isinstance(group, LazyGroup)
    found: dict[str, set[str]] = {}
    for verb in VERBS:
        command: Any = group.get_command(None, verb)
        leaves = {f"{verb} {name}": leaf for name, leaf in getattr(command, "commands", {}).items()} or {verb: command}
        for name, leaf in leaves.items():
            found[name] = {p.opts[0] if p.param_type_name == "option" else p.name for p in leaf.params} - {"--help"}
    assert found == {name: set(options.split()) for name, options in EXPECTED.items()}


def test_every_option_says_what_it_does() -> None:
    group = command_line()
    for verb in VERBS:
        command: Any = group.get_command(None, verb)
        for leaf in getattr(command, "commands", {"": command}).values():
            silent = [p.name for p in leaf.params if p.param_type_name == "option" and not p.help]
            assert not silent, f"{verb}: {silent}"
