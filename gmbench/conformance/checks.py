"""Running the checks: each is a small function of the plugin under test that returns, skips or fails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gmbench.errors import GmbenchError, MissingCapability
from gmbench.registry import Plugin, Registry, discover

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found; `message` says why it failed or was skipped."""

    name: str
    status: Status
    message: str = ""


class Failed(AssertionError):
    """The plugin does not conform; the message says in one line how."""


class Skipped(Exception):
    """The check does not apply; the message says why."""


def require(condition: object, message: str) -> None:
    """Fails the check with `message` unless `condition` holds."""
    if not condition:
        raise Failed(message)


def check(plugin: str | Plugin, *, registry: Registry | None = None) -> list[CheckResult]:
    """Executes every check of the plugin's kind and returns their results, in order.

    Arguments:
        plugin: A task, a model or a judge: its name, the path of its folder, or what discovery found.
    """
    registry = registry or discover()
    found = registry.find(plugin) if isinstance(plugin, str) else plugin
    if found.card.kind == "model":
        from gmbench.conformance import models

        return run_checks(models.CHECKS, models.ModelUnderTest(found, registry), models.PREREQUISITES)
    if found.card.kind == "judge":
        from gmbench.conformance import judges

        return run_checks(judges.CHECKS, judges.JudgeUnderTest(found), judges.PREREQUISITES)
    from gmbench.conformance import tasks

    return run_checks(tasks.CHECKS, tasks.TaskUnderTest(found), tasks.PREREQUISITES)


def run_checks(
    checks: Sequence[Callable[[Any], None]], subject: Any, prerequisites: Collection[Callable[[Any], None]] = ()
) -> list[CheckResult]:
    """One result a check. An error in the plugin is a failure of the check that met it.

    Arguments:
        prerequisites: The checks without which none of those after them can pass: where one fails, they are skipped.
    """
    results: list[CheckResult] = []
    cause = ""
    for one in checks:
        name = one.__name__
        if cause:
            results.append(CheckResult(name, "skipped", cause))
            continue
        try:
            one(subject)
            results.append(CheckResult(name, "passed"))
        except (Skipped, MissingCapability) as reason:
            results.append(CheckResult(name, "skipped", str(reason)))
        except (Failed, GmbenchError) as reason:
            results.append(CheckResult(name, "failed", str(reason)))
        except Exception as error:
            message = " ".join(str(error).split())
            results.append(CheckResult(name, "failed", f"{type(error).__name__}: {message}{_where(error)}"))
        if one in prerequisites and results[-1].status == "failed":
            cause = f"'{name.replace('_', ' ')}' failed"
    return results


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
