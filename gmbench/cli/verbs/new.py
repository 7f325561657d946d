"""`gmbench new model NAME` and `gmbench new task NAME`: a minimal plugin that passes the checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gmbench.cli.app import Debug, new_app, out_folder

app = new_app(help="Write a minimal model or task that passes the checks.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores, a letter first.")]
Out = Annotated[str, typer.Option(help="The folder in which the plugin's folder is made.")]


# Which template is of a space, and where to try what it makes.
MODELS = {"binary": ("model", "ising --variant lattice=4x4"), "tokens": ("model_of_tokens", "pcfg")}


@app.command()
def model(
    name: Name,
    out: Out = ".",
    space: Annotated[str, typer.Option(help=f"What it is a model of: {' or '.join(MODELS)}.")] = "binary",
    debug: Debug = False,
) -> None:
    """Write a minimal model: a manifest and model.py."""
    from gmbench.errors import UserError, nearest

    if space not in MODELS:
        raise UserError(f"--space {space!r}: there is no template of it: {nearest(space, MODELS)}")
    template, where = MODELS[space]
    folder = _write("model", name, out, template)
    print(f"{folder} is made; try it: gmbench run --task {where} --track smoke --model {folder}")


@app.command()
def task(name: Name, out: Out = ".", debug: Debug = False) -> None:
    """Write a minimal task: a manifest and task.py."""
    folder = _write("task", name, out, "task")
    print(f"{folder} is made; try it: gmbench run --task {folder} --track smoke --model independent_bits")


def _write(kind: str, name: str, out: str, template: str) -> str:
    from gmbench.errors import UserError
    from gmbench.plugin import NAME_PATTERN
    from gmbench.registry import discover

    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"name {name!r}: lower-case letters, digits and underscores, a letter first")
    registry = discover()
    if taken := (registry.models if kind == "model" else registry.tasks).get(name):
        raise UserError(f"a {kind} is named {name!r} already ({taken.folder}), and results go by names")
    folder = out_folder(out) / name
    class_name = "".join(word.capitalize() for word in name.split("_"))
    templates = Path(__file__).parents[2] / "templates" / template
    try:
        folder.mkdir(parents=True)
        for file in sorted(templates.glob("*.txt")):
            text = file.read_text(encoding="utf-8").replace("NAME", name).replace("CLASS", class_name)
            (folder / file.stem).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{folder} exists already; nothing was written") from None
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None
    shown = str(folder)
    return shown if "/" in shown else f"./{shown}"
