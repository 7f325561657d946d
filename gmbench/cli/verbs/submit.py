"""`gmbench submit RUN…`: validate finished runs and add their records to the leaderboards."""

from __future__ import annotations

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
    from gmbench.leaderboard.generate import regenerate
    from gmbench.standing import leaderboards_root
    from gmbench.submission.adding import add_runs

    root = to or leaderboards_root() or Path("leaderboards")
    for path in add_runs(runs, root):
        print(path)
    for path in regenerate(root):
        print(path)
