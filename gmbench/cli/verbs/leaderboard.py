"""`gmbench leaderboard`: generate the leaderboards from their records, or check them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gmbench.cli.app import Debug, new_app

app = new_app()


@app.command()
def command(
    only_check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if a table is stale or a record is wrong.")
    ] = False,
    at: Annotated[
        Path | None, typer.Option(help="The folder 'leaderboards'; by default that of the checkout.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Generate the leaderboards from their records. Executes no plugin."""
    from gmbench.errors import UserError
    from gmbench.standing import leaderboards_root

    root = at or leaderboards_root()
    if root is None:  # a checkout that holds no results
        print("no records yet")
        return
    if not root.is_dir():
        raise UserError(f"no folder {root}: --at names the folder 'leaderboards' of a checkout")
    from gmbench.leaderboard.generate import regenerate, summary

    if only_check:
        from gmbench.leaderboard.check import check

        problems = check(root)
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            raise typer.Exit(1)
    else:
        for path in regenerate(root):
            print(path)
    print(summary(root))
