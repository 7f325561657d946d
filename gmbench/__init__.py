"""gmbench measures generative models of every family by the same yardstick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name of the public function or class -> the module that has it. Importing gmbench itself imports none of them.
_EXPORTS = {
    "Estimate": "gmbench.estimate",
    "Likelihood": "gmbench.model",
    "Options": "gmbench.runner",
    "Record": "gmbench.record",
    "Request": "gmbench.plan",
    "check": "gmbench.conformance",
    "discover": "gmbench.registry",
    "evaluate": "gmbench.evaluation",
    "neighbours": "gmbench.standing",
    "read_record": "gmbench.record",
    "run": "gmbench.api",
    "score": "gmbench.evaluation",
}

if TYPE_CHECKING:
    from gmbench.api import run
    from gmbench.conformance import check
    from gmbench.estimate import Estimate
    from gmbench.evaluation import evaluate, score
    from gmbench.model import Likelihood
    from gmbench.plan import Request
    from gmbench.record import Record, read_record
    from gmbench.registry import discover
    from gmbench.runner import Options
    from gmbench.standing import neighbours


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'gmbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


__all__ = [
    "Estimate",
    "Likelihood",
    "Options",
    "Record",
    "Request",
    "check",
    "discover",
    "evaluate",
    "neighbours",
    "read_record",
    "run",
    "score",
]
