"""The command line: `gmbench VERB`. Each verb is a small module in `verbs`, imported when the verb is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

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

    try:
        command_line().main(args=arguments, prog_name="gmbench")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:
        raise
    except GmbenchError as error:
        if DEBUG in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if DEBUG in arguments:
            raise
        print(f"error: {describe(error)} ({DEBUG} shows the traceback)", file=sys.stderr)
        return 1
    return 0


def describe(error: BaseException) -> str:
    """An unexpected error in one line: its type, its message and where it arose."""
    message = " ".join(str(error).split()) or "no message"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {message}{where}"
