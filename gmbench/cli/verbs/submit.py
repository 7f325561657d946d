"""`gmbench submit RUN…`: validate finished runs and add their records to the leaderboards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gmbench.cli.app import Debug, new_app

app = new_app()


@app.command()
def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, such as runs/ising/ebm_gfn/….")],
    to: Annotated[
        Path | None, typer.Option(help="The folder 'leaderboards'; by default that of the checkout.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Validate finished runs without executing any plugin, copy their records and generate the tables again."""
    from gmbench.errors import UserError
    from gmbench.leaderboard.generate import regenerate
    from gmbench.record import RECORD
    from gmbench.standing import leaderboards_root
    from gmbench.submission.adding import add_runs

    root = to or leaderboards_root() or Path("leaderboards")
    unfinished = [folder for folder in runs if folder.is_dir() and not (folder / RECORD).exists()]
    if len(unfinished) == len(runs):
        raise UserError(f"{runs[0]} has no {RECORD}: only a run that has ended has one")
    for folder in unfinished:
        print(f"skipped {folder}: it has no {RECORD}, since the run has not ended", file=sys.stderr)
    for path, is_new in add_runs([folder for folder in runs if folder not in unfinished], root).items():
        print(path if is_new else f"already there: {path}")
    for path in regenerate(root):
        print(path)
