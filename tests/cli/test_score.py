"""Measuring what was made elsewhere: `gmbench score` and `gmbench.evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmbench.errors import UserError
from gmbench.evaluation import evaluate
from gmbench.model import Likelihood

Call = Callable[..., Any]
FAIR = np.random.default_rng(0).integers(0, 2, (3000, 4))
SCORE = ("score", "--task", "coin_task", "--samples", "s.npz")


def test_score_measures_what_samples_allow(gmbench: Call) -> None:
    np.savez("s.npz", samples=FAIR, something_else=np.zeros(3))
    record = gmbench(*SCORE, "--json").json
    assert record["subject"] == "samples" and record["headline"] == ""
    assert record["metrics"]["bit_error"]["value"] == pytest.approx(0.2, abs=0.03)
    assert set(record["unavailable"]) == {"excess_nats", "coupling_norm"}
    np.savez("s.npz", anything=FAIR.astype(bool))
    assert gmbench(*SCORE, "--json").json["metrics"] == record["metrics"]
    shown = gmbench(*SCORE)
    assert "no headline" in shown.out and "bit_error" in shown.out


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"samples": FAIR[:, :3]}, "(number, 4) is expected"),
        ({"samples": FAIR[:0]}, "there are none"),
        ({"samples": FAIR + 1}, "values other than 0 and 1"),
        ({"samples": np.full((3000, 4), np.nan)}, "values other than 0 and 1"),
        ({"samples": FAIR.astype(str)}, "numbers are expected"),
        ({"samples": np.array([{}], dtype=object)}, "not a readable .npz file"),
        ({"a": FAIR, "b": FAIR}, "which are samples"),
    ],
    ids=["shape", "empty", "values", "nan", "text", "pickle", "ambiguous"],
)
def test_files_that_are_no_samples(gmbench: Call, arrays: dict[str, Any], expected: str) -> None:
    np.savez("s.npz", **arrays)
    done = gmbench(*SCORE)
    assert done.code == 2 and expected in done.err and done.err.count("\n") == 1


def test_files_that_are_no_npz(gmbench: Call) -> None:
    assert "no file s.npz" in gmbench(*SCORE).err
    Path("s.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert "not a readable .npz" in gmbench(*SCORE).err
    with Path("s.npz").open("wb") as file:
        np.save(file, FAIR)
    assert "np.savez" in gmbench(*SCORE).err


def test_too_few_samples_are_said_in_the_cell(gmbench: Call) -> None:
    np.savez("s.npz", samples=FAIR[:1999])
    record = gmbench(*SCORE, "--json").json
    assert record["unavailable"]["bit_error"] == "needs 2000 samples, and the file has 1999"


class Fair:
    """As somebody without gmbench would write it."""

    def sample(self, num: int) -> Any:
        return torch.randint(2, (num, 4)).numpy()

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x),), -4 * np.log(2.0))


def test_evaluate_a_model_that_takes_no_generator(coins: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    record = evaluate(Fair(), task="coin_task", name="fair", out=tmp_path)
    again = evaluate(Fair(), task="coin_task", name="fair", out=tmp_path)
    assert record.subject == "external" and record.model == "fair" and not record.card_config
    assert record.metrics == again.metrics and record.fit_id == again.fit_id
    assert torch.equal(before, torch.get_rng_state())
    assert record.metrics["excess_nats.exact"].value == pytest.approx(0.19, abs=0.1)
    assert (tmp_path / "coin_task" / "fair" / record.fit_id / "record.json").is_file()


def test_evaluate_says_what_the_likelihood_is(coins: Path, tmp_path: Path) -> None:
    bound = Likelihood("vae", "elbo", "lower_bound")
    record = evaluate(Fair(), task="coin_task", out=tmp_path, likelihood=bound)
    assert record.headline == "excess_nats.vae.elbo"


def test_evaluate_refuses_what_cannot_be_measured(coins: Path, tmp_path: Path) -> None:
    class Wrong:
        def sample(self, num: int, *, rng: torch.Generator) -> torch.Tensor:
            return torch.rand(num, 4, generator=rng)

    with pytest.raises(UserError, match="values other than 0 and 1"):
        evaluate(Wrong(), task="coin_task", out=tmp_path)
    with pytest.raises(UserError, match="none of the methods"):
        evaluate(object(), task="coin_task", out=tmp_path)
    with pytest.raises(UserError, match="lower-case"):
        evaluate(Fair(), task="coin_task", name="../up", out=tmp_path)


def test_different_weights_are_different_subjects(coins: Path, tmp_path: Path) -> None:
    class Coin(torch.nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(torch.tensor(p))

        def sample(self, num: int, rng: torch.Generator) -> torch.Tensor:
            return (torch.rand(num, 4, generator=rng) < self.p).float()

    ids = [evaluate(Coin(p), task="coin_task", name="coin", out=tmp_path).fit_id for p in (0.4, 0.6, 0.4)]
    assert ids[0] == ids[2] != ids[1]
