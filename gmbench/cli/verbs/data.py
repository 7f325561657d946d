"""`gmbench data`: where the data of tasks is, whether it is whole, and how to get it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gmbench.cli.app import Debug, new_app

if TYPE_CHECKING:
    from gmbench.plugin import DataFile

app = new_app(help="Where the data of tasks is, whether it is whole, and how to get it.", no_args_is_help=True)
TaskName = Annotated[str, typer.Argument(help="A task; all tasks when left out.")]


@app.command("list")
def list_files(task: TaskName = "", debug: Debug = False) -> None:
    """List the data files of tasks, with licence and address."""
    for name, file in _files(task):
        print(f"{name}  {file.path}  {file.licence or 'licence not stated'}  {file.url or 'no address'}")


@app.command()
def status(task: TaskName = "", debug: Debug = False) -> None:
    """Say of each file whether it is there (without reading it whole; `verify` does)."""
    from gmbench.data.local import locate

    for name, file in _files(task):
        print(f"{name}  {file.path}  {'there' if locate(file).is_file() else 'missing'}")


@app.command()
def fetch(task: TaskName = "", debug: Debug = False) -> None:
    """Download what is missing, and check it; what cannot be had is named in the end."""
    from gmbench.data import local
    from gmbench.errors import UserError

    faults = []
    for name, file in _files(task):
        try:
            print(f"{name}  {local.fetch(file)}")
        except UserError as fault:
            faults.append(str(fault))
    if faults:
        raise UserError("; ".join(faults))


@app.command()
def verify(task: TaskName = "", debug: Debug = False) -> None:
    """Compare every file with its checksum; exit code 1 if one is missing or damaged."""
    from gmbench.data import local

    bad = False
    for name, file in _files(task):
        found = local.status(file)
        bad |= found != "ok"
        print(f"{name}  {file.path}  {found}")
    if bad:
        raise typer.Exit(1)


@app.command()
def path(task: TaskName = "", debug: Debug = False) -> None:
    """Print where each file is, or would be put."""
    from gmbench.data.local import locate

    for _, file in _files(task):
        print(locate(file))


def _files(task: str) -> Iterator[tuple[str, DataFile]]:
    from gmbench.plugin import TaskCard
    from gmbench.registry import discover

    registry = discover()
    plugins = [registry.task(task)] if task else [plugin for _, plugin in sorted(registry.tasks.items())]
    any_files = False
    for plugin in plugins:
        assert isinstance(plugin.card, TaskCard)
        for file in plugin.card.data:
            any_files = True
            yield plugin.card.name, file
    if not any_files:
        subject = f"{task} needs" if task else "the tasks need"
        print(f"{subject} no data files: data are generated", file=sys.stderr)
