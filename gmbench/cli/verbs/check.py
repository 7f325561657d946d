"""`gmbench check PLUGIN`: conformance checks. They execute the plugin."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from gmbench.cli.app import Debug, new_app

app = new_app()


@app.command()
def command(
    plugin: Annotated[str, typer.Argument(help="A task, a model or a judge, by name or by the path of its folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Check a plugin for conformance. This executes the plugin; exit code 1 if a check fails."""
    from gmbench.registry import discover

    registry = discover()
    found = registry.find(plugin)
    print(f"executing the {found.card.kind} in {found.folder}", file=sys.stderr)
    from gmbench.conformance import check

    results = check(found, registry=registry)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        for result in results:
            message = f": {result.message}" if result.message else ""
            print(f"{result.status:8} {result.name.replace('_', ' ')}{message}")
    failed = sum(result.status == "failed" for result in results)
    print(f"{len(results)} checks, {failed} failed", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
