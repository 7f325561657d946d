"""Each check of a model or a task fails on a plugin that has the fault it is there for, and on no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gmbench.conformance import check
from gmbench.registry import discover

SAMPLE = "return (torch.rand(num, len(self.logits), generator=rng) < self.logits.sigmoid()).float()"
LOG_PROB = ").sum(-1)\n\n    def energy"
STEP = "self.running_mean.lerp_(batch.mean(0), 0.05)"

MODEL_FAULTS = {
    "config_has_no_defaults": ("batch_size: int = Field(ge=1)", "batch_size: int = Field(32, ge=1)"),
    "config_is_documented": ('"""Points a step."""', ""),
    "samples_are_points": (SAMPLE, SAMPLE.replace(".float()", ".float() * 2")),
    "same_stream_gives_same_samples": (SAMPLE, SAMPLE.replace("generator=rng", "generator=None")),
    "uses_no_global_randomness": (SAMPLE, f"torch.rand(1)\n        {SAMPLE}"),
    "log_prob_has_its_shape": (LOG_PROB, ").sum(-1, keepdim=True)\n\n    def energy"),
    "leaves_points_alone": ("return -(x @ self.logits)", "return x.neg_() @ self.logits"),
    "energy_has_its_shape": ("return -(x @ self.logits)", "return (x @ self.logits).log().log()"),
    "probabilities_sum_to_one_at_most": (LOG_PROB, ").sum(-1) + 0.1\n\n    def energy"),
    "samples_agree_with_log_prob": (SAMPLE, SAMPLE.replace(".float()", ".flip(1).float()")),
    "capabilities_are_declared": ("def energy(self", "def energies(self"),
    "resumes_exactly": (STEP, f"{STEP}\n        self.seen = getattr(self, 'seen', 0) + 1\n"
                              "        self.running_mean += 1e-3 * self.seen"),
    "survives_saving": ("torch.randn(space.dim))", "torch.randn(space.dim))\n        self.shift = 0.0",),
}  # fmt: skip
# Faults that bring others with them.
BRINGS = {
    "same_stream_gives_same_samples": {"uses_no_global_randomness", "survives_saving", "resumes_exactly"},
    "samples_are_points": {"samples_agree_with_log_prob"},
    "log_prob_has_its_shape": {"probabilities_sum_to_one_at_most", "samples_agree_with_log_prob"},
    "probabilities_sum_to_one_at_most": {"samples_agree_with_log_prob"},
    "energy_has_its_shape": {"survives_saving", "resumes_exactly"},  # NaN equals nothing
}


def copy(coins: Path, name: str, to: Path) -> Path:
    shutil.copytree(coins / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to / name


def failures(folder: Path) -> set[str]:
    return {result.name for result in check(str(folder)) if result.status == "failed"}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_model_faults(coins: Path, tmp_path: Path, fault: str) -> None:
    folder = copy(coins, "coin_model", tmp_path)
    code = folder / "model.py"
    before, after = MODEL_FAULTS[fault]
    text = code.read_text()
    assert before in text
    text = text.replace(before, after)
    if fault == "survives_saving":  # a number that training makes and no checkpoint holds
        text = text.replace(STEP, f"{STEP}\n        self.shift = 0.3")
        text = text.replace("-(x @ self.logits)", "-(x @ self.logits) + self.shift")
    code.write_text(text)
    found = failures(folder)
    assert fault in found
    assert found <= {fault} | BRINGS.get(fault, set())


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("batch_size = 32\n", "", "card_config_is_complete"),
        ("learning_rate = 0.005", "learning_rate = -1", "card_config_is_complete"),
        ('"energy"]', '"energy", "couplings"]', "capabilities_are_declared"),
        ('accepts = ["binary"]', 'accepts = ["binary", "binery"]', "accepts_known_spaces"),
    ],
)
def test_card_faults(coins: Path, tmp_path: Path, before: str, after: str, fault: str) -> None:
    folder = copy(coins, "coin_model", tmp_path)
    card = folder / "plugin.toml"
    assert before in card.read_text()
    card.write_text(card.read_text().replace(before, after))
    assert fault in failures(folder)


@pytest.mark.parametrize(
    ("file", "before", "after", "fault"),
    [
        ("task.py", "def measure_bit_error", "def measure_bits", "every_metric_has_its_method"),
        ("task.py", 'self.rng("train", seed)', 'self.rng("train")', "data_follow_the_seed"),
        ("task.py", 'self.truth.sample(200, rng=self.rng("validation"))', "train[:200]", "validation_is_apart"),
        ("task.py", "len(self.means), generator=rng)", "len(self.means))", "uses_no_global_randomness"),
        ("task.py", "value=gaps.mean().item()", "value=gaps.mean().item() + 0.1", "truth_gets_the_null"),
        ("task.py", "gaps.mean()", "(gaps + torch.rand(1)).mean()", "measuring_repeats"),
        ("task.py", "return train[", "return 1 - 3 * train[", "data_are_points"),
        ("task.py", '"strong": (0.05', '"string": (0.05', "every_variant_constructs"),
        ("plugin.toml", 'requires = ["couplings"]', 'requires = ["coupling"]', "metrics_require_known_capabilities"),
        ("plugin.toml", 'tracks = ["smoke", "small"]', 'tracks = ["small"]', "default_variant_has_default_track"),
        ("published.toml", "bias=mild", "bias=none", "published_numbers_are_readable"),
    ],
)  # fmt: skip
def test_task_faults(coins: Path, tmp_path: Path, file: str, before: str, after: str, fault: str) -> None:
    path = copy(coins, "coin_task", tmp_path) / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    assert fault in failures(path.parent)


def test_the_coins_conform(coins: Path) -> None:
    for name in ("coin_task", "coin_model"):
        results = {result.name: result.status for result in check(str(coins / name))}
        assert "failed" not in results.values()
    assert results["couplings_are_symmetric"] == "skipped" and results["resumes_exactly"] == "passed"


def test_a_model_of_an_unknown_space_is_checked_as_far_as_it_can_be(coins: Path, tmp_path: Path) -> None:
    folder = copy(coins, "coin_model", tmp_path)
    card = folder / "plugin.toml"
    card.write_text(card.read_text().replace("tuning =", 'only_tasks = ["elsewhere"]\ntuning ='))
    results = {result.name: result.status for result in check(str(folder), registry=discover())}
    assert results["entry_is_a_model"] == "passed" and results["fits"] == "skipped"


def test_a_plugin_beside_the_working_folder_is_found_by_its_path(
    coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(coins, "coin_model", tmp_path)
    card = folder / "plugin.toml"
    card.write_text(card.read_text().replace('name = "coin_model"', 'name = "fresh"'))
    monkeypatch.chdir(folder.rename(tmp_path / "fresh").parent)
    assert [result.message for result in check("./fresh") if result.status == "failed"] == []


@pytest.mark.parametrize(
    ("kind", "file", "before", "after", "fault"),
    [
        ("model", "model.py", "import torch", "import torches", "entry_is_a_model"),
        ("model", "plugin.toml", "batch_size = 32\n", "", "card_config_is_complete"),
        ("model", "model.py", "super().__init__(config, space)", "self.logits = 1 / 0", "fits"),
        ("task", "task.py", "import torch", "import torches", "entry_is_a_task"),
        ("task", "task.py", '"strong": (0.05', '"string": (0.05', "every_variant_constructs"),
    ],
)  # fmt: skip
def test_a_cause_is_told_once(
    coins: Path, tmp_path: Path, kind: str, file: str, before: str, after: str, fault: str
) -> None:
    folder = copy(coins, f"coin_{kind}", tmp_path)
    path = folder / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    results = check(str(folder))
    place = [result.name for result in results].index(fault)
    assert [result.name for result in results if result.status == "failed"] == [fault]
    told = f"'{fault.replace('_', ' ')}' failed"
    assert {(result.status, result.message) for result in results[place + 1 :]} == {("skipped", told)}
