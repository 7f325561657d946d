"""Runs of `--model hf:…`: what is measured, and that a run is known by the checkpoint's content."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints import TOLERANCE, build, byte_pairs, copied, gpt2, plain
from gmbench.plan import Request, make_plan
from gmbench.registry import discover
from gmbench.source import source_digest

FOLDER = Path(__file__).parents[2] / "baselines" / "autoregressive" / "hf"


TASK = """
from __future__ import annotations

import torch

from gmbench.metrics.likelihood import nll
from gmbench.model import Data
from gmbench.spaces import TokenSequence
from gmbench.task import Measurement, Task
from gmbench.tasks.language.likelihoods import sequence_likelihoods

POINTS = torch.tensor([[2, 3, 5, 1, 0, 0], [4, 1, 0, 0, 0, 0], [2, 3, 5, 2, 4, 1]])


class Words(Task):
    space = TokenSequence(7, 6, words=("<pad>", "<eos>", "the", "cat", "dog", "sees", "runs"))

    def data(self, seed):
        return Data(self.space, POINTS, lambda num, rng: POINTS[:num], POINTS)

    def measure_nats(self, model, context):
        found = {f"nats.{one.key}": one for one in sequence_likelihoods(model, POINTS, self.space, {}, context.rng)}
        values = {key: nll(one.log_p, one.kind) for key, one in found.items()}
        return Measurement(values, headline=next(iter(values)), per_point=-next(iter(found.values())).log_p.float())

    def measure_pseudo(self, model, context):
        return Measurement({"pseudo": nll(model.pseudo_log_prob(POINTS), "exact")})
"""
CARD = """
kind = "task"
name = "few_words"
version = 1
summary = "three sentences"
entry = "task:Words"
licence = "Apache-2.0"
modality = "language"
space = "tokens"
default_variant = "a=b"
default_track = "smoke"
protocol = {}
variants = [{ name = "a=b", tracks = ["smoke"] }]

[metrics.nats]
summary = "nats of a sentence"
requires = ["token_log_prob|score_text"]
headline = true

[metrics.pseudo]
summary = "pseudo-nats of a sentence"
requires = ["pseudo_log_prob"]

[tracks.smoke]
summary = "for tests"
ceiling_minutes = 1
"""


@pytest.fixture
def few_words(tmp_path: Path) -> Path:
    folder = tmp_path / "few_words"
    folder.mkdir()
    (folder / "plugin.toml").write_text(CARD)
    (folder / "task.py").write_text(TASK)
    return folder


def test_run_measures_a_folder_and_keeps_its_digest(
    gmbench: Callable[..., Any], few_words: Path, causal: Path, tmp_path: Path
) -> None:
    folder = copied(causal, tmp_path)
    asked = ("run", "--task", few_words, "--model", f"hf:{folder}", "--json")
    first = gmbench(*asked)
    assert first.code == 0, first.err
    record = first.json
    texts = ["the cat sees", "dog", "the cat sees the dog"]
    expected = -float(build(folder).score_text(texts).mean())
    assert record["metrics"]["nats.text"]["value"] == pytest.approx(expected, abs=TOLERANCE)
    assert record["cost"]["parameters"] == sum(one.numel() for one in plain(folder)[0].parameters())
    assert "checkpoint" not in record["config"] and len(record["config"]["sha256"]) == 64
    assert "causal model" in record["unavailable"]["pseudo"] and record["headline"] == "nats.text"
    assert f"--model hf:{folder}" in record["command"] and not record["card_config"]
    [run] = Path("runs/few_words/hf").iterdir()
    assert sum(path.stat().st_size for path in run.iterdir()) < 20_000 < (folder / "model.safetensors").stat().st_size
    again = gmbench(*asked, "--remeasure")
    assert again.json["metrics"] == record["metrics"] and again.json["fit_id"] == record["fit_id"]
    # other weights under the same name are another run
    gpt2(len(byte_pairs()), n_layer=1).save_pretrained(folder)
    other = gmbench(*asked)
    assert other.json["fit_id"] != record["fit_id"]
    assert other.json["metrics"]["nats.text"]["value"] != record["metrics"]["nats.text"]["value"]
    meant = gmbench(*asked, "--set", f"sha256={record['config']['sha256']}")
    assert meant.code == 2 and "has the SHA-256" in meant.err and meant.err.count("\n") == 2  # with the run's name


def test_run_measures_a_masked_model_by_pseudo_likelihood_only(
    gmbench: Callable[..., Any], few_words: Path, masked: Path
) -> None:
    record = gmbench("run", "--task", few_words, "--model", f"hf:{masked}", "--json").json
    assert list(record["metrics"]) == ["pseudo"] and record["headline"] == ""
    assert "masked model" in record["unavailable"]["nats"]


def test_what_the_colon_names(gmbench: Callable[..., Any], few_words: Path, causal: Path) -> None:
    asked = ("run", "--task", few_words, "--model")
    nothing = gmbench(*asked, "hf:")
    assert nothing.code == 2 and "--model hf: says no checkpoint" in nothing.err
    twice = gmbench(*asked, f"hf:{causal}", "--set", "checkpoint=x")
    assert twice.code == 2 and "both say what checkpoint is" in twice.err
    other = gmbench(*asked, "uniform_tokens:x")
    assert other.code == 2 and "no model is named 'uniform_tokens:x'" in other.err
    without = gmbench(*asked, "hf")
    assert without.code == 1 and "--model hf:FOLDER" in without.err


def test_a_path_with_a_plus_is_no_preset(causal: Path, few_words: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(causal, tmp_path / "a+b:c"))
    plan = make_plan(Request(str(few_words), f"hf:{folder}"))
    assert plan.name == "hf" and plan.config.checkpoint == str(folder)  # type: ignore[attr-defined]


def test_the_argument_is_no_part_of_a_models_source() -> None:
    plugin = discover().models["hf"]
    other = type(plugin)(plugin.card.model_copy(update={"argument": ""}), plugin.folder, plugin.package)
    assert source_digest(plugin) == source_digest(other)


def test_the_same_files_elsewhere_are_the_same_run(causal: Path, few_words: Path, tmp_path: Path) -> None:
    plans = [make_plan(Request(str(few_words), f"hf:{folder}")) for folder in (causal, copied(causal, tmp_path))]
    assert plans[0].fit_id == plans[1].fit_id and "checkpoint" not in plans[0].identity["config"]
    other = copied(causal, tmp_path / "more")
    _, tokenizer = plain(other)
    gpt2(len(tokenizer), n_embd=32).save_pretrained(other)
    assert make_plan(Request(str(few_words), f"hf:{other}")).fit_id != plans[0].fit_id
