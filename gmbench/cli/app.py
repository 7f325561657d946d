"""The group of verbs. It knows their names and summaries, so that `--help` imports none of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

DEBUG = "--debug"
Debug = Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error.")]
"""An option of every verb; `main` reads it from the arguments, since it shows the errors."""
Out = Annotated[str, typer.Option(help="Where run folders are made.")]
VERBS = {
    "run": "Fit a model to a task, measure it and record the result.",
    "list": "List tasks, models or metrics.",
    "show": "Show the card of a task, a model or a metric.",
    "data": "Where the data of tasks is: list, status, fetch, verify, path.",
    "check": "Check a plugin for conformance. This executes the plugin.",
    "new": "Write a minimal model or task that passes the checks.",
    "score": "Measure a file of samples from any source.",
    "submit": "Validate finished runs and add their records to the leaderboards.",
    "leaderboard": "Generate the leaderboards from their records, or check them.",
}


class LazyGroup(TyperGroup):
    """Imports `gmbench.cli.verbs.<verb>`, and takes its Typer application `app`, when the verb is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        command = get_command(importlib.import_module(f"gmbench.cli.verbs.{cmd_name}").app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from gmbench.errors import UserError, nearest

            raise UserError(f"no command is named {args[0]!r}: {nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def command_line() -> Any:
    """The whole command line as one command object."""
    group = new_app(cls=LazyGroup, no_args_is_help=True)
    group.callback()(_top)
    return get_command(group)


def new_app(**settings: Any) -> typer.Typer:
    """An application with plain help: colours and boxes would cost an import of rich at every start."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def out_folder(text: str) -> Path:
    """The folder that `--out` names; an empty one is a variable of the shell that was not set."""
    from gmbench.errors import UserError

    if not text:
        raise UserError("--out is empty; the current folder is '.'")
    return Path(text)


def _show_version(wanted: bool) -> None:
    if wanted:
        from gmbench import __version__

        print(__version__)
        raise typer.Exit


def _top(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Measures generative models of every family by the same yardstick: gmbench run --task ising --model ebm_gfn"""
