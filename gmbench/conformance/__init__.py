"""Conformance: the checks that every plugin must pass, the bundled ones and a stranger's. They execute the plugin."""

from __future__ import annotations

from gmbench.conformance.checks import CheckResult, check

__all__ = ["CheckResult", "check"]
