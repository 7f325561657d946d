"""Reference rows of token sequences: the truth as a model, and the uniform distribution."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import rng
from gmbench.errors import MissingCapability
from gmbench.model import Data, Model
from gmbench.plan import Request, make_plan
from gmbench.plugin import ModelCard, read_manifest
from gmbench.registry import Plugin
from gmbench.runner import data_for, make_task
from gmbench.spaces import Space, TokenPair, TokenSequence
from sentences import every_sentence

FOLDER = Path(__file__).parents[2] / "baselines" / "reference"
SENTENCES = TokenSequence(5, 4)
STREAM = TokenSequence(5, 4, ends=False)
PAIRS = TokenPair(TokenSequence(7, 3), SENTENCES)


def build(name: str, space: Space, truth: Any = None) -> Model:
    card = read_manifest(FOLDER / name)
    assert isinstance(card, ModelCard)
    model_class = Plugin(card, FOLDER / name, f"gmbench.baselines.reference.{name}").load()
    model: Model = model_class(model_class.Config(), space)
    points = torch.ones(2, 4, dtype=torch.long)
    assert model.stages(Data(space, points, lambda num, rng: points[:1].repeat(num, 1), points, truth)) == []
    return model


def test_uniform_tokens_have_one_probability_each() -> None:
    model = build("uniform_tokens", SENTENCES)
    x = every_sentence(SENTENCES)
    by_token = model.token_log_prob(x)
    assert torch.equal(by_token != 0, x != 0)
    assert by_token[x != 0].tolist() == pytest.approx([-math.log(4)] * int((x != 0).sum()))
    log_p = model.log_prob(x, rng=rng())
    assert torch.allclose(log_p, -(x != 0).sum(1) * math.log(4))
    # what is missing is sentences that are longer than a row: three words and no end
    assert float(log_p.exp().sum()) == pytest.approx(1 - 0.75**4)


def test_uniform_samples_follow_the_probabilities() -> None:
    model = build("uniform_tokens", SENTENCES)
    x = model.sample(20_000, rng=rng(1))
    SENTENCES.validate(x)
    rows = every_sentence(SENTENCES)
    index = {tuple(row): number for number, row in enumerate(rows.tolist())}
    counts = torch.tensor([index[tuple(row)] for row in x.tolist()]).bincount(minlength=len(rows)).double()
    p = model.log_prob(rows, rng=rng()).double().exp()
    full = rows[:, 3] == 1  # of full rows the end was set, whatever was drawn
    p[full] = 0.75**3 / int(full.sum())
    z = (counts - 20_000 * p) / (20_000 * p * (1 - p)).sqrt()
    assert float(p.sum()) == pytest.approx(1) and float(z.abs().max()) < 4.5
    windows = build("uniform_tokens", STREAM).sample(2000, rng=rng(2))
    STREAM.validate(windows)
    assert windows.unique().tolist() == [1, 2, 3, 4]


def test_uniform_targets_need_sources_and_ignore_them() -> None:
    model = build("uniform_tokens", PAIRS)
    sources = torch.tensor([[3, 4, 1], [5, 1, 0]])
    with pytest.raises(MissingCapability, match="needs the sources"):
        model.sample(2, rng=rng())
    targets = model.sample(2, given=sources, rng=rng())
    SENTENCES.validate(targets)
    x = torch.cat([sources, targets], 1)
    assert torch.equal(model.token_log_prob(x), build("uniform_tokens", SENTENCES).token_log_prob(targets))
    assert model.log_prob(x, rng=rng()).shape == (2,)


class Truth:
    """Offers a part of what a truth may offer."""

    def sample(self, num: int, *, given: Any = None, rng: Generator) -> Tensor:
        word = 2 if given is None else 3
        return torch.tensor([[word, 1, 0, 0]]).repeat(num, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.double().sum(1)

    def token_log_prob(self, x: Tensor) -> Tensor:
        return -x.double()


def test_the_oracle_hands_on_and_says_what_it_lacks() -> None:
    model = build("oracle", SENTENCES, Truth())
    x = model.sample(3, rng=rng())
    assert x.tolist() == [[2, 1, 0, 0]] * 3
    assert model.sample(1, given=torch.tensor([1]), rng=rng()).tolist() == [[3, 1, 0, 0]]
    assert model.log_prob(x, rng=rng()).tolist() == [-3] * 3
    assert torch.equal(model.token_log_prob(x), -x.double())
    for missing in ("pseudo_log_prob", "attention"):
        with pytest.raises(MissingCapability, match=f"no {missing}"):
            getattr(model, missing)(x)
    with pytest.raises(MissingCapability, match="not known"):
        build("oracle", SENTENCES)
    with pytest.raises(MissingCapability, match="needs the sources"):
        build("oracle", PAIRS, Truth()).sample(2, rng=rng())
    card = read_manifest(FOLDER / "oracle")
    assert isinstance(card, ModelCard)
    unfitted = Plugin(card, FOLDER / "oracle", "gmbench.baselines.reference.oracle").load()(None, SENTENCES)
    with pytest.raises(MissingCapability, match="stages"):
        unfitted.log_prob(x, rng=rng())


def test_the_harness_gives_the_truth_to_the_oracle_alone() -> None:
    for model, known in (("oracle", True), ("uniform_tokens", True), ("gpt", False)):
        plan = make_plan(Request("pcfg", model, "grammar=small", "smoke"))
        assert (data_for(plan, make_task(plan)).truth is not None) == known
