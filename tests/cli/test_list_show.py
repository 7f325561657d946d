"""`gmbench list`, `show` and `data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


def test_list_names_tasks_models_and_metrics(gmbench: Call) -> None:
    everything = gmbench("list")
    for expected in ("coin_task", "coin_model", "bit_error", "ising", "synthetic2d"):
        assert expected in everything.out
    tasks = {row["name"]: row for row in gmbench("list", "tasks", "--json").json}
    assert tasks["coin_task"]["headline"] == "excess_nats"
    assert tasks["coin_task"]["variants"] == ["bias=mild", "bias=strong"]
    models = {row["name"]: row for row in gmbench("list", "models", "--json").json}
    assert "coin_task" in models["coin_model"]["tasks"] and models["coin_model"]["presets"] == ["slow"]
    metrics = gmbench("list", "metrics", "--json").json
    assert {"bit_error", "coupling_norm"} <= {row["name"] for row in metrics if row["task"] == "coin_task"}


def test_what_tasks_share_is_listed_once(gmbench: Call) -> None:
    lines = gmbench("list", "metrics").out.splitlines()
    shared = [line for line in lines if line.split()[0] == "excess_nats"]
    assert len(shared) == 1 and "coin_task" in shared[0] and "ising" in shared[0]
    assert [line for line in lines if line.split()[0] == "bit_error" and "coin_task: " in line]
    models = {line.split()[0]: line for line in gmbench("list", "models").out.splitlines()}
    assert " binary " in models["coin_model"] and " ising " in models["zero_couplings"]


def test_list_of_something_else(gmbench: Call) -> None:
    done = gmbench("list", "taks")
    assert done.code == 2 and "did you mean 'tasks'" in done.err


def test_show_a_model(gmbench: Call) -> None:
    done = gmbench("show", "coin_model")
    for expected in ("On coins", "capabilities: sample, log_prob, energy", "momentum = 0.8", "num_steps = 300"):
        assert expected in done.out, expected
    assert gmbench("show", "coin_model", "--json").json["config"]["momentum"] == 0.9


def test_show_a_preset(gmbench: Call) -> None:
    done = gmbench("show", "coin_model+slow")
    assert "config of coin_model+slow on coin_task, track smoke" in done.out and "learning_rate = 0.005" in done.out
    shown = gmbench("show", "coin_model+slow", "--json").json["effective"]["coin_task"]
    assert shown["small"] == shown["smoke"] | {"num_steps": 300}
    unknown = gmbench("show", "coin_model+slw")
    assert unknown.code == 2 and "did you mean 'slow'" in unknown.err


def test_show_a_metric(gmbench: Call) -> None:
    done = gmbench("show", "bit_error")
    for expected in ("metric bit_error", "on coin_task", "largest error of a bit", "lower is better; needs sample"):
        assert expected in done.out, expected
    shared = gmbench("show", "excess_nats")
    assert "on coin_task, where it is the headline" in shared.out and "on ising" in shared.out
    assert gmbench("show", "bit_error", "--json").json["coin_task"]["requires"] == ["sample"]


def test_lists_fit_the_terminal(gmbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert max(map(len, gmbench("list", "models").out.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = gmbench("list", "models").out.splitlines()
    assert max(map(len, lines)) == 80 and any(line.endswith("…") for line in lines)


def test_show_a_task_with_its_published_numbers(gmbench: Call) -> None:
    done = gmbench("show", "coin_task")
    quoted = "honest coin, bias=mild: excess_nats 0.125"
    for expected in ("num_train = 500", "* excess_nats", "* bias=mild: smoke, small", quoted):
        assert expected in done.out, expected
    (row,) = gmbench("show", "coin_task", "--json").json["published"]
    assert row["value"] == 0.125


def test_show_what_is_not_there(gmbench: Call) -> None:
    done = gmbench("show", "coin_tusk")
    assert done.code == 2 and "did you mean 'coin_task'" in done.err
    assert done.err.startswith("error: ") and done.err.count("\n") == 1


def test_tasks_without_data_files(gmbench: Call) -> None:
    assert gmbench("data", "fetch", "ising").err == "ising needs no data files: data are generated\n"


def test_fetching_goes_on_past_a_file_that_cannot_be_had(
    gmbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("GMBENCH_DATA", str(data))
    monkeypatch.setattr("gmbench.data.local.cache_folder", lambda: tmp_path / "cache")
    asked = []

    def download(file: object, path: Path, expected: str) -> None:
        asked.append(file.path)  # type: ignore[attr-defined]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not it")

    monkeypatch.setattr("gmbench.data.local._download", download)
    found = gmbench("data", "fetch", "dynamic_mnist")
    assert found.code == 2 and found.err.count("\n") == 1
    assert "binarized_mnist_train.amat.gz is missing and has no address" in found.err
    assert "damaged" in found.err and "omniglot/images_background_small2.zip" in asked


def test_data_of_a_task(gmbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coins: Path) -> None:
    import hashlib

    content = b"points"
    folder = tmp_path / "plugins" / "filed"
    folder.mkdir(parents=True)
    manifest = (coins / "coin_task" / "plugin.toml").read_text().replace('"coin_task"', '"filed"')
    digest = hashlib.sha256(content).hexdigest()
    (folder / "plugin.toml").write_text(f'{manifest}\n[[data]]\npath = "filed/points.bin"\nsha256 = "{digest}"\n')
    monkeypatch.setenv("GMBENCH_PATH", str(folder.parent))
    monkeypatch.setenv("GMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "missing" in gmbench("data", "status", "filed").out
    fetched = gmbench("data", "fetch", "filed")
    assert fetched.code == 2 and "GMBENCH_DATA" in fetched.err
    path = tmp_path / "data" / "filed" / "points.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert gmbench("data", "path", "filed").out.strip() == str(path)
    assert gmbench("data", "verify", "filed").code == 0
    assert gmbench("data", "fetch", "filed").code == 0
    path.write_bytes(b"pints")
    verified = gmbench("data", "verify", "filed")
    assert verified.code == 1 and "damaged" in verified.out
    assert "is damaged" in gmbench("data", "fetch", "filed").err
