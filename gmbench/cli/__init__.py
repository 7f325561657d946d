"""The command line: `gmbench VERB`. Each verb is a small module in `verbs`, imported when the verb is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from gmbench.cli.app import DEBUG, command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (a run failed), 2 (the user's mistake) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _call(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python flushes stdout at exit, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _call(arguments: list[str]) -> int:
    from gmbench.errors import GmbenchError
    from gmbench.registry import faults_of_search_path

    try:
        for fault in faults_of_search_path():
            print(f"warning: {fault}", file=sys.stderr)
        code = command_line().main(args=arguments, prog_name="gmbench", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # rich's, when the reader has gone
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        raise
    except GmbenchError as error:
        if DEBUG in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        # Typer's own errors of usage, known by their methods: some versions import them from click, others carry them.
        if hasattr(error, "format_message") and hasattr(error, "show"):
            return _usage(error)
        if DEBUG in arguments:
            raise
        print(f"error: {describe(error)} ({DEBUG} shows the traceback)", file=sys.stderr)
        return 1
    return 0


def describe(error: BaseException) -> str:
    """An unexpected error in one line: its type, its message and where it arose."""
    from gmbench.registry import place_of

    message = " ".join(str(error).split()) or "no message"
    place = place_of(error)
    return f"{type(error).__name__}: {message}" + (f" at {place}" if place else "")


def _usage(error: Any) -> int:
    """Shows a missing or wrong option in one line; the help where no arguments were given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        command = getattr(getattr(error, "ctx", None), "command_path", "gmbench")
        print(f"error: {' '.join(error.format_message().split())} ({command} --help)", file=sys.stderr)
    return 2
