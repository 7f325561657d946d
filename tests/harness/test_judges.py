"""Judges are found, checked and loaded by name, and every fault of their files is one line."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from gmbench.errors import UserError
from gmbench.judge import Classifies, load_judge
from gmbench.plugin import JudgeCard, read_manifest
from gmbench.registry import Plugin, discover
from gmbench.source import source_digest


@pytest.fixture
def copy(coins: Path, tmp_path: Path) -> Path:
    """A copy of the coin judge that may be spoilt, loaded by its path."""
    return Path(shutil.copytree(coins / "coin_judge", tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def put(folder: Path, content: bytes) -> None:
    """Puts `content` in place of the weights `signs`, with its checksum in the card."""
    before = hashlib.sha256((folder / "signs.safetensors").read_bytes()).hexdigest()
    (folder / "signs.safetensors").write_bytes(content)
    replace(folder / "plugin.toml", before, hashlib.sha256(content).hexdigest())


def refused(folder: Path, *expected: str, weights: str = "signs") -> None:
    with pytest.raises(UserError) as caught:
        load_judge(str(folder), weights=weights)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    for part in expected:
        assert part in message, message


def test_judges_are_found_without_being_executed(coins: Path) -> None:
    before = set(sys.modules)
    registry = discover()
    assert {"coin_judge", "binary_cnn"} <= set(registry.judges)
    assert not {"coin_judge", "binary_cnn"} & {*registry.tasks, *registry.models}
    assert not {name for name in set(sys.modules) - before if "judge" in name and "plugin" in name}
    assert registry.find("coin_judge") is registry.judge("coin_judge")
    assert registry.judge(str(coins / "coin_judge")) is registry.judges["coin_judge"]
    with pytest.raises(UserError, match="did you mean 'coin_judge'"):
        registry.judge("coin_jugde")
    with pytest.raises(UserError, match="is a judge, not a task"):
        registry.task(str(coins / "coin_judge"))


def test_a_judge_is_loaded_by_name(coins: Path) -> None:
    judge = load_judge("coin_judge", weights="signs")
    file = coins / "coin_judge" / "signs.safetensors"
    assert judge.key == f"coin_judge@{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    assert judge.num_features == 3 and isinstance(judge, Classifies)
    assert not judge.training and not any(parameter.requires_grad for parameter in judge.parameters())
    x = torch.tensor([[1.0, 1, 1, 1, 1], [1, 0, 1, 0, 1]])
    assert torch.allclose(judge.features(x), torch.tensor([[5.0, -1, 1], [1, -5, 1]]) / 5**0.5)
    other = load_judge("coin_judge", weights="two")
    assert other.num_features == 2 and other.key != judge.key


def test_names_that_are_not_there(copy: Path) -> None:
    with pytest.raises(UserError, match="no judge is named 'nobody'"):
        load_judge("nobody", weights="signs")
    refused(copy, "judge coin_judge has no weights 'sign'", "did you mean 'signs'", weights="sign")


def test_weights_that_are_tampered_with(copy: Path) -> None:
    file = copy / "signs.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(copy, str(file), "is damaged", "SHA-256")
    file.unlink()
    refused(copy, str(file), "cannot be read: No such file")


def test_files_that_are_not_what_the_judge_reads(copy: Path) -> None:
    put(copy, b"not at all")
    refused(copy, "holds no weights of coin_judge", "SafetensorError")
    put(copy, save({"sings": torch.ones(3, 5)}))
    refused(copy, "holds no weights of coin_judge", "KeyError: 'signs'")
    put(copy, save({"signs": torch.ones(3, 5), "more": torch.ones(1)}))
    refused(copy, "holds no weights of coin_judge", "RuntimeError", "more")


def test_code_that_is_no_judge(copy: Path) -> None:
    replace(copy / "judge.py", "class CoinJudge(Judge)", "class CoinJudge(torch.nn.Module)")
    refused(copy, "judge:CoinJudge is not a subclass of gmbench.judge.Judge")
    replace(copy / "judge.py", "import torch\n", "import torches\n")
    shutil.move(copy, copy.with_name("another"))  # of a module that failed to import nothing is kept
    refused(copy.with_name("another"), "the judge 'coin_judge'", "cannot be imported", "torches")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"signs.safetensors"', '"../signs.safetensors"', "not a relative path inside the plugin's folder"),
        ('"signs.safetensors"', '"/tmp/signs.safetensors"', "not a relative path inside the plugin's folder"),
        ('"signs.safetensors"', '"signs.pt"', "weights.signs.file"),
        ('sha256 = "', 'sha256 = "x', "weights.signs.sha256"),
        ("[weights.signs]", '[weights."../signs"]', "weights"),
        ('command = "written by hand"', "", "command"),
    ],
)
def test_faults_of_the_card(copy: Path, old: str, new: str, reason: str) -> None:
    replace(copy / "plugin.toml", old, new)
    refused(copy, "plugin.toml", reason)


def test_a_judge_without_weights_is_refused(copy: Path) -> None:
    card = (copy / "plugin.toml").read_text()
    (copy / "plugin.toml").write_text(card[: card.index("[weights.signs]")] + "[weights]\n")
    refused(copy, "plugin.toml", "weights")


def test_two_judges_of_one_name(copy: Path, coins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{copy.parent}")
    registry = discover()
    assert ("judge", "coin_judge") in registry.clashes
    for find in (registry.judge, registry.find):
        with pytest.raises(UserError, match="two judge plugins are named 'coin_judge'"):
            find("coin_judge")
    with pytest.raises(UserError, match="a name of its own"):
        registry.refuse_namesake(registry.judge(str(copy)))


def test_a_name_that_a_judge_shares_with_a_model(copy: Path, coins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(copy / "plugin.toml", 'name = "coin_judge"', 'name = "coin_model"')
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{copy.parent}")
    registry = discover()
    assert registry.model("coin_model") is not registry.judge("coin_model")
    with pytest.raises(UserError, match="'coin_model' is a model and a judge; give the path"):
        registry.find("coin_model")


def test_the_digest_of_a_judge_holds_its_code_and_its_weights(copy: Path) -> None:
    def digest() -> str:
        card = read_manifest(copy)
        assert isinstance(card, JudgeCard)
        return source_digest(Plugin(card, copy))

    before = digest()
    replace(copy / "plugin.toml", "Signs were thought of, not trained.", "Signs.")
    assert digest() == before
    put(copy, save({"signs": -torch.ones(3, 5)}))
    assert digest() != before
