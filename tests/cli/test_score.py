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
from gmbench.record import read_record

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
        ({"samples": 2 * FAIR - 1}, "(s + 1) / 2"),
        ({"samples": FAIR.reshape(3000, 2, 2)}, "reshape to (3000, 4)"),
        ({"samples": np.full((3000, 4), np.nan)}, "12000 of them are NaN"),
        ({"samples": FAIR.astype(str)}, "numbers are expected"),
        ({"samples": np.array([{}], dtype=object)}, "not a readable .npy or .npz file"),
        ({"a": FAIR, "b": FAIR}, "which are samples"),
    ],
    ids=["shape", "empty", "values", "spins", "lattice", "nan", "text", "pickle", "ambiguous"],
)
def test_files_that_are_no_samples(gmbench: Call, arrays: dict[str, Any], expected: str) -> None:
    np.savez("s.npz", **arrays)
    done = gmbench(*SCORE)
    assert done.code == 2 and expected in done.err and done.err.count("\n") == 1


def test_files_that_are_no_npz(gmbench: Call) -> None:
    assert "no file s.npz" in gmbench(*SCORE).err
    for content in (b"PK\x03\x04 nonsense", b"\x93NUMPY nonsense", b""):
        Path("s.npz").write_bytes(content)
        done = gmbench(*SCORE)
        assert done.code == 2 and "not a readable .npy or .npz" in done.err and "np.savez" in done.err


def test_a_plain_array_is_read_too(gmbench: Call) -> None:
    np.savez("s.npz", samples=FAIR)
    np.save("s.npy", FAIR.astype(bool))
    plain = gmbench("score", "--task", "coin_task", "--samples", "s.npy", "--json").json
    assert plain["metrics"] == gmbench(*SCORE, "--json").json["metrics"]
    np.save("s.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "not a readable" in gmbench("score", "--task", "coin_task", "--samples", "s.npy").err


def test_too_few_samples_for_every_metric_leave_no_record(gmbench: Call, tmp_path: Path) -> None:
    np.savez("s.npz", samples=FAIR[:1999])
    done = gmbench(*SCORE)
    assert done.code == 2 and "needs 2000 samples, and the file has 1999" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "expected"), [("Mine", "lower-case"), ("coin_model", "the name of a plugin")])
def test_names_are_checked_before_anything_is_measured(
    gmbench: Call, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    import gmbench.evaluation as evaluation

    def measure(*_: Any, **__: Any) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(evaluation, "measure", measure)
    np.savez("s.npz", samples=FAIR)
    done = gmbench(*SCORE, "--name", name)
    assert done.code == 2 and expected in done.err
    with pytest.raises(UserError, match=expected):
        evaluate(Fair(), task="coin_task", name=name)


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


class Biased:
    """Something whose state nobody knows."""

    def __init__(self, p: float) -> None:
        self.p = p

    def log_prob(self, x: torch.Tensor) -> Any:
        return (x * np.log(self.p) + (1 - x) * np.log(1 - self.p)).sum(1).numpy()

    def energy(self, x: torch.Tensor) -> Any:
        return -self.log_prob(x)


def test_unlike_objects_never_share_a_folder(coins: Path, tmp_path: Path) -> None:
    records = [evaluate(Biased(p), task="coin_task", name="biased", out=tmp_path) for p in (0.4, 0.6, 0.4)]
    assert records[0].fit_id == records[2].fit_id != records[1].fit_id
    for record in records[:2]:
        path = tmp_path / "coin_task" / "biased" / record.fit_id / "record.json"
        assert read_record(path).metrics == record.metrics


def test_unlike_models_with_the_same_weights_are_refused(coins: Path, tmp_path: Path) -> None:
    class Coin(torch.nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.p, self.scale = p, torch.nn.Parameter(torch.ones(()))

        def sample(self, num: int, rng: torch.Generator) -> torch.Tensor:
            return (torch.rand(num, 4, generator=rng) < self.p * self.scale).float()

    first = evaluate(Coin(0.4), task="coin_task", name="coin", out=tmp_path)
    with pytest.raises(UserError, match="other results of a coin with the same weights"):
        evaluate(Coin(0.6), task="coin_task", name="coin", out=tmp_path)
    assert evaluate(Coin(0.4), task="coin_task", name="coin", out=tmp_path).fit_id == first.fit_id


def test_no_file_of_an_earlier_record_stays(coins: Path, tmp_path: Path) -> None:
    record = evaluate(Biased(0.4), task="coin_task", name="biased", out=tmp_path)
    folder = tmp_path / "coin_task" / "biased" / record.fit_id
    (folder / "stale.png").write_bytes(b"of an earlier record")
    evaluate(Biased(0.4), task="coin_task", name="biased", out=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"record.json", "points.f32.gz"}


def test_log_prob_must_give_one_number_a_point(coins: Path, tmp_path: Path) -> None:
    class Wide(Biased):
        def log_prob(self, x: torch.Tensor) -> Any:
            return x

    with pytest.raises(UserError, match=r"log_prob gave shape \(1000, 4\) for 1000 points where \(1000,\) is expected"):
        evaluate(Wide(0.5), task="coin_task", out=tmp_path)


@pytest.mark.parametrize("kind", ["exact", "lower_bound"])
def test_no_probability_of_a_discrete_point_is_above_1(coins: Path, tmp_path: Path, kind: Any) -> None:
    class Loud(Biased):
        likelihood = Likelihood("", "own", kind)

        def log_prob(self, x: torch.Tensor) -> Any:
            return super().log_prob(x) + 20.0

    if kind == "exact":
        with pytest.raises(UserError, match=r"log_prob gave .*: the log p of a discrete point is at most 0"):
            evaluate(Loud(0.5), task="coin_task", out=tmp_path)
    else:  # a bound may be above in a point, by its noise
        assert evaluate(Loud(0.5), task="coin_task", out=tmp_path).metrics["excess_nats.own"].value < 0


def test_what_is_no_number_is_refused_by_name(coins: Path, tmp_path: Path) -> None:
    class Broken(Biased):
        def log_prob(self, x: torch.Tensor) -> Any:
            return super().log_prob(x) * np.nan

    with pytest.raises(UserError, match=r"log_prob gave NaN for 1000 of 1000 points"):
        evaluate(Broken(0.5), task="coin_task", out=tmp_path)
