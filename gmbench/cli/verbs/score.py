"""`gmbench score`: measure a file of samples from any source."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gmbench.cli.app import Debug, Out, new_app, out_folder

app = new_app()


@app.command()
def command(
    task: Annotated[str, typer.Option(help="A task's name, or the path of its plugin folder.")],
    samples: Annotated[Path, typer.Option(help="A .npy or .npz file (there the array 'samples'), a point a row.")],
    variant: Annotated[str, typer.Option(help="Factors such as lattice=4x4,sigma=0.2.")] = "",
    track: Annotated[str, typer.Option(help="The budget with which is measured.")] = "",
    name: Annotated[str, typer.Option(help="What the source of the samples is called in the record.")] = "samples",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the metrics' own randomness.")] = 0,
    out: Out = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
    debug: Debug = False,
) -> None:
    """Measure a file of samples by the metrics that need nothing but samples, and record the result."""
    from gmbench.cli.live import progress_on_stderr
    from gmbench.cli.result import console_for, print_result
    from gmbench.evaluation import score
    from gmbench.registry import discover

    into = out_folder(out)
    with progress_on_stderr() as progress:
        record = score(
            samples, task=task, variant=variant, track=track, name=name, seed=seed, out=into, progress=progress
        )
    card = discover().task(task).card
    folder = into / record.task / record.model / record.fit_id
    print_result(console_for(sys.stderr if as_json else sys.stdout), record, card, folder)  # type: ignore[arg-type]
    if as_json:
        print(record.to_json(), end="")
