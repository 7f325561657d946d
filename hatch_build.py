"""Puts tasks/, baselines/ and leaderboards/ inside the package of a wheel; an editable install needs nothing."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("tasks", "baselines", "leaderboards")


class PlaceFolders(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        for folder in FOLDERS:
            build_data["force_include"][str(Path(self.root, folder))] = f"gmbench/{folder}"
