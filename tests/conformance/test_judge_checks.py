"""The bundled judges conform, and each check of a judge fails on one that has the fault it is there for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gmbench.conformance import check
from gmbench.registry import Plugin, discover

CHECKOUT = Path(__file__).parents[2]
BUNDLED = [judge for judge in discover().judges.values() if judge.folder.resolve().is_relative_to(CHECKOUT)]
FEATURES = "return (2 * x - 1) @ self.signs.T / x.shape[1] ** 0.5"
FAULTS = {
    "accepts_known_spaces": ("plugin.toml", 'accepts = ["binary"]', 'accepts = ["binary", "binery"]'),
    "weights_have_their_checksums": ("plugin.toml", 'sha256 = "0', 'sha256 = "1'),
    "entry_is_a_judge": ("judge.py", "(Judge)", "(torch.nn.Module)"),
    "weights_load": ("judge.py", 'weights["signs"]', 'weights["sings"]'),
    "features_have_their_shape": ("judge.py", FEATURES, f"return ({FEATURES.removeprefix('return ')})[:, :1]"),
    "features_are_of_each_point": ("judge.py", FEATURES, f"{FEATURES} - x.mean()"),
    "logits_have_their_shape": ("judge.py", "return torch.stack([total, x.shape[1] - total], 1)", "return total"),
    "uses_no_global_randomness": ("judge.py", FEATURES, f"torch.rand(1)\n        {FEATURES}"),
}


@pytest.fixture
def copy(coins: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coins / "coin_judge", tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))


def failures(folder: Path) -> dict[str, str]:
    return {result.name: result.message for result in check(str(folder)) if result.status == "failed"}


@pytest.mark.parametrize("judge", BUNDLED, ids=lambda judge: judge.card.name)
def test_bundled_judges_conform(judge: Plugin) -> None:
    assert [f"{one.name}: {one.message}" for one in check(judge) if one.status == "failed"] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(copy: Path, fault: str) -> None:
    file, before, after = FAULTS[fault]
    text = (copy / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after))
    assert set(failures(copy)) == {fault}


def test_features_that_are_not_finite_and_points_that_are_written_into(copy: Path) -> None:
    text = (copy / "judge.py").read_text()
    (copy / "judge.py").write_text(text.replace(FEATURES, f"{FEATURES} + torch.inf"))
    assert "not finite" in failures(copy)["features_have_their_shape"]
    other = copy.rename(copy.with_name("other"))
    (other / "judge.py").write_text(text.replace("(2 * x - 1)", "x.mul_(2).sub_(1)"))
    assert set(failures(other)) == {"features_are_of_each_point"}


def test_a_file_that_is_no_safetensors(copy: Path) -> None:
    import hashlib

    file, card = copy / "two.safetensors", copy / "plugin.toml"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(b"pickled")
    card.write_text(card.read_text().replace(before, hashlib.sha256(b"pickled").hexdigest()))
    results = {one.name: one for one in check(str(copy))}
    assert results["weights_are_safetensors"].status == "failed"
    assert results["weights_load"].status == "skipped"


def test_every_check_has_a_fault() -> None:
    from gmbench.conformance.judges import CHECKS

    assert {one.__name__ for one in CHECKS} == {*FAULTS, "weights_are_safetensors"}
