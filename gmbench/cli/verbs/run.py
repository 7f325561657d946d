"""`gmbench run`: fit a model to a task, measure it and record the result, for one or several seeds and variants."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmbench.cli.app import Debug, Out, new_app, out_folder

if TYPE_CHECKING:
    from gmbench.plan import Plan
    from gmbench.record import Record
    from gmbench.runner import Options

app = new_app()


@app.command()
def command(
    task: Annotated[str, typer.Option(help="A task's name, name:PATH of a text, or its plugin folder's path.")],
    model: Annotated[str, typer.Option(help="A model's name, name+preset or name:value, or the path of its folder.")],
    variant: Annotated[str, typer.Option(help="Factors such as lattice=4x4,sigma=0.2; 'all' for every variant.")] = "",
    track: Annotated[str, typer.Option(help="The budget: smoke, small, medium or paper.")] = "",
    seed: Annotated[str, typer.Option(help="One seed, or several: 0..4 or 0,2,5.")] = "0",
    device: Annotated[str, typer.Option(help="A torch device such as cpu or cuda:0.")] = "cpu",
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the run.")] = 1,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="A hyper-parameter; may be repeated.")
    ] = [],  # noqa: B006 (typer copies it)
    out: Out = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")] = False,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure the finished fit again.")] = False,
    with_inputs: Annotated[bool, typer.Option("--with-inputs", help="Also run the inputs that are missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record, or a list of several.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Throw away what the run folder holds; start again.")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Refuse operations whose result may vary on a GPU.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Fit a model to a task, measure it and record the result.

    This executes the two plugins. An interrupted run is resumed by the same command; a finished one is shown again.
    """
    from gmbench.cli.seeds import parse_seeds, parse_variants
    from gmbench.plugin import ModelCard, TaskCard
    from gmbench.registry import discover

    registry = discover()
    card, model_card = registry.task(task).card, registry.model(model).card
    assert isinstance(card, TaskCard) and isinstance(model_card, ModelCard)
    card.require_argument()
    seeds, variants, into = parse_seeds(seed), parse_variants(variant, track, card), out_folder(out)
    if len(seeds) * len(variants) == 1 and not dry_run:
        chosen, preset = card.variant(variants[0]), model_card.preset_of(model, card)
        name = f"{model_card.name}+{preset}" if preset else model_card.name
        # Said before torch is imported, which takes seconds.
        print(_label(card.name, chosen.name, card.choose_track(track, chosen), name, seeds[0]), file=sys.stderr)
    from gmbench.plan import Request, make_plan, parse_overrides

    overrides = parse_overrides(settings)
    # Every plan is made before anything is run: a mistake in a name should not wait for hours of training.
    plans = [
        make_plan(
            Request(task, model, one_variant, track, one_seed, device, precision, threads, overrides, into), registry
        )
        for one_variant in variants
        for one_seed in seeds
    ]
    if dry_run:
        _show_plans(plans, as_json)
        return
    for line in dict.fromkeys(filter(None, map(_without_headline, plans))):
        print(line, file=sys.stderr)
    from gmbench.runner import Options

    options = Options(
        force=force, remeasure=remeasure, with_inputs=with_inputs, deterministic=deterministic, registry=registry
    )
    records, codes = _run_all(plans, options, as_json=as_json, debug=debug)
    if as_json:
        _print_json(records, several=len(plans) > 1)
    if any(codes):
        raise typer.Exit(next(filter(None, codes)) if len(plans) == 1 else 1)


def _run_all(plans: list[Plan], options: Options, *, as_json: bool, debug: bool) -> tuple[list[Record], list[int]]:
    from gmbench.cli import describe
    from gmbench.cli.averages import print_average, print_line
    from gmbench.cli.live import progress_on_stderr
    from gmbench.cli.result import console_for, print_neighbours, print_result
    from gmbench.cli.signals import stop_on_signals
    from gmbench.errors import GmbenchError
    from gmbench.runner import execute

    records: list[Record] = []
    codes: list[int] = []
    console = console_for(sys.stderr if as_json else sys.stdout)
    with stop_on_signals() as options.should_stop:
        for position, plan in enumerate(plans):
            label = _label(plan.task_card.name, plan.variant.name, plan.track, plan.name, plan.request.seed)
            record = None
            try:
                with progress_on_stderr() as options.progress:
                    if len(plans) > 1:
                        options.progress.message(f"[{position + 1} of {len(plans)}] {label}")
                    record = execute(plan, options)
            except KeyboardInterrupt:
                print(f"interrupted; this resumes it: {_resume_command(plan)}", file=sys.stderr)
                raise typer.Exit(130) from None
            except Exception as error:
                if debug or len(plans) == 1:
                    raise
                known = isinstance(error, GmbenchError)
                print(f"error: {label}: {error if known else describe(error)}", file=sys.stderr)
            codes.append(int(record is None or record.status == "failed"))
            with console:  # written at once, so that `| head` has its lines before it leaves
                if record is not None:
                    records.append(record)
                    show = print_result if len(plans) == 1 else print_line
                    show(console, record, plan.task_card, plan.folder)
                mine = [one for one in records if one.variant == plan.variant.name and one.status == "done"]
                if mine and (plan is plans[-1] or plans[position + 1].variant != plan.variant):
                    if len(plans) > 1:
                        print_average(console, mine, plan.task_card)
                    if not plan.task_card.argument:  # nobody else has a file of the user's
                        print_neighbours(console, mine, plan.task_card)
    return records, codes


def _without_headline(plan: Plan) -> str:
    """What the headline needs and the model's card does not offer: better said before a long fit than after it."""
    task, offered = plan.task_card, set(plan.model_card.capabilities)
    for needed in plan.variant.requires or task.metrics[task.headline].requires:
        if not offered & set(alternatives := needed.split("|")):
            lacking = f"needs {' or '.join(alternatives)}, which {plan.model_card.name} does not offer"
            return f"note: no headline and no rank on {plan.variant.name}: {task.headline} {lacking}"
    return ""


def _label(task: str, variant: str, track: str, model: str, seed: int) -> str:
    return f"{task} {variant} · {track} · {model} · seed {seed}"


def _resume_command(plan: Plan) -> str:
    out = plan.request.out
    return plan.command + (f" --out {shlex.quote(str(out))}" if out != Path("runs") else "")


def _show_plans(plans: list[Plan], as_json: bool) -> None:
    import json

    from gmbench.plan import describe_plan

    described = [describe_plan(plan) for plan in plans]
    if as_json:
        print(json.dumps(described if len(described) > 1 else described[0], indent=2))
        return
    for one in described:
        for name, value in one.items():
            print(f"{name + ':':12} {json.dumps(value) if isinstance(value, dict | list) else value}")
        print()


def _print_json(records: list[Record], several: bool) -> None:
    if several:
        print("[\n" + ",\n".join(record.to_json().rstrip() for record in records) + "\n]")
    elif records:
        print(records[0].to_json(), end="")
