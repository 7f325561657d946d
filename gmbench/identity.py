"""What the identities of results are hashes of: everything that decides a result, the seed apart."""

from __future__ import annotations

from typing import Any

IDENTITY_VERSION = 1


def run_identity(
    *,
    task: str,
    task_version: int,
    variant: str,
    track: str,
    model: str,
    model_version: int,
    config: dict[str, Any],
    data: dict[str, str],
    parents: dict[str, str],
    device: str,
    precision: str,
    threads: int,
) -> dict[str, Any]:
    """Of a fit that gmbench made. `device` is its class, `cpu` or `cuda`; `model` is without a preset."""
    return {
        "identity": IDENTITY_VERSION,
        "task": task,
        "task_version": task_version,
        "variant": variant,
        "track": track,
        "model": model,
        "model_version": model_version,
        "config": config,
        "data": data,
        "parents": parents,
        "device": device,
        "precision": precision,
        "threads": threads,
    }


def external_identity(
    subject: str, task: str, task_version: int, variant: str, track: str, name: str, sha256: str
) -> dict[str, Any]:
    """Of a model or of samples made elsewhere, whose content has the digest `sha256`."""
    return {
        "identity": IDENTITY_VERSION,
        "subject": subject,
        "task": task,
        "task_version": task_version,
        "variant": variant,
        "track": track,
        "model": name,
        "sha256": sha256,
    }
