"""Checkpoints that tests of the model `hf` read; to make them takes the library transformers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny GPT-2 with byte-level byte pairs."""
    from checkpoints import save_causal

    return save_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT of whole words."""
    from checkpoints import save_masked

    return save_masked(tmp_path_factory.mktemp("masked"))
