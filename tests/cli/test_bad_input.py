"""Every mistake gets one clear line and the right exit code, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RUN = ("run", "--task", "coin_task", "--model", "coin_model")
Call = Callable[..., Any]


def refused(done: Any, *expected: str, code: int = 2) -> None:
    """One line, of which `expected` are parts, and the exit code."""
    assert done.code == code, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    for part in expected:
        assert part in line
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--task", "coin_tsk", "--model", "coin_model"), "did you mean 'coin_task'"),
        (("run", "--task", "coin_task", "--model", "coin_modl"), "did you mean 'coin_model'"),
        (("run", "--task", "coin_task", "--model", "coin_model+slw"), "did you mean 'slow'"),
        (("run", "--task", "coin_task", "--model", "no/such/folder"), "no folder no/such/folder"),
        ((*RUN, "--variant", "bias=mid"), "did you mean 'bias=mild'"),
        ((*RUN, "--variant", "bis=mild"), "did you mean 'bias'"),
        ((*RUN, "--variant", "mild"), "factor=value"),
        (("run", "--task", "ising", "--model", "histogram"), "to task ising: it is only for synthetic2d"),
        ((*RUN, "--track", "smal"), "did you mean 'small'"),
        ((*RUN, "--variant", "bias=strong", "--track", "small"), "has no track small: it has smoke"),
        ((*RUN, "--set", "num_step=3"), "did you mean 'num_steps'"),
        ((*RUN, "--set", "num_steps=many"), "num_steps"),
        ((*RUN, "--set", "num_steps=0"), "greater than or equal to 1"),
        ((*RUN, "--set", "num_steps"), "name=value"),
        ((*RUN, "--seed", "1..x"), "seeds are whole numbers"),
        ((*RUN, "--seed", "3..1"), "is empty"),
        (("frobnicate",), "no command is named 'frobnicate'"),
    ],
)
def test_names_and_values(gmbench: Call, tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    refused(gmbench(*arguments), expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_devices_that_are_not_there(gmbench: Call, device: str) -> None:
    refused(gmbench(*RUN, "--device", device), "device")


def test_precisions_that_are_not_there(gmbench: Call) -> None:
    refused(gmbench(*RUN, "--precision", "12-bit"), "precision")


def test_unknown_option(gmbench: Call) -> None:
    done = gmbench(*RUN, "--sed", "1")
    refused(done, "No such option: --sed", "gmbench run --help")
    refused(gmbench("run", "--task", "coin_task"), "Missing option '--model'")
    refused(gmbench(*RUN, "--threads", "0"), "--threads")
    assert gmbench("data").code == 2 and gmbench("--help").code == 0


def write_model(folder: Path, coins: Path, **replaced: str) -> Path:
    """A copy of the coin model's manifest with some lines replaced, in a folder of its own."""
    folder.mkdir(parents=True)
    manifest = (coins / "coin_model" / "plugin.toml").read_text()
    for name, value in replaced.items():
        lines = [f"{name} = {value}" if line.startswith(f"{name} =") else line for line in manifest.splitlines()]
        manifest = "\n".join(lines)
    (folder / "plugin.toml").write_text(manifest)
    (folder / "model.py").write_text((coins / "coin_model" / "model.py").read_text())
    return folder


def test_model_that_does_not_accept_the_space(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "texts", coins, accepts='["text"]')
    refused(gmbench("run", "--task", "coin_task", "--model", folder), "does not apply", "text", "binary")


def test_missing_capability_is_said_in_the_cell(gmbench: Call) -> None:
    record = gmbench(*RUN, "--json").json
    assert record["unavailable"] == {"coupling_norm": "needs couplings, which the model does not offer"}


def test_diverged_run_is_recorded_with_its_step(gmbench: Call) -> None:
    done = gmbench(*RUN, "--set", "nan_at_step=17", "--json")
    assert done.code == 1
    assert done.json["status"] == "failed" and "step 17" in done.json["reason"] and not done.json["metrics"]
    again = gmbench(*RUN, "--set", "nan_at_step=17")
    assert again.code == 1 and "already failed" in again.err and "step 17" in again.out
    both = gmbench(*RUN, "--seed", "0..1", "--set", "nan_at_step=17", "--json")
    assert both.code == 1 and [record["status"] for record in both.json] == ["failed", "failed"]


def test_damaged_record(gmbench: Call, tmp_path: Path) -> None:
    first = gmbench(*RUN, "--json").json
    (path,) = tmp_path.glob("runs/*/*/*/record.json")
    path.write_text(path.read_text()[:200])
    refused(gmbench(*RUN), str(path.relative_to(tmp_path)), "--force", code=1)
    path.unlink()
    again = gmbench(*RUN, "--json").json
    assert again["metrics"] == first["metrics"] and again["cost"]["steps"] == first["cost"]["steps"]


def test_damaged_weights(gmbench: Call, tmp_path: Path) -> None:
    gmbench(*RUN)
    (path,) = tmp_path.glob("runs/*/*/*/model.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    refused(gmbench(*RUN, "--remeasure"), "is damaged", "--force", code=1)


def test_full_disk(gmbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    real = os.fsync
    written = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:  # which code begins the run, and the first checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    undisturbed = gmbench(*RUN, "--json", "--out", "other").json
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        refused(gmbench(*RUN), "No space left on device", "resumes", code=1)
    (folder,) = tmp_path.glob("runs/*/*/*")
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []
    resumed = gmbench(*RUN, "--json").json
    assert resumed["cost"]["resumes"] == 1 and resumed["metrics"] == undisturbed["metrics"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_that_is_really_full(gmbench: Call, tmp_path: Path) -> None:
    folder = tmp_path / gmbench(*RUN, "--dry-run", "--json").json["folder"]
    folder.mkdir(parents=True)
    (folder / "checkpoint.tmp").symlink_to("/dev/full")
    refused(gmbench(*RUN), "No space left on device", code=1)


def test_output_folder_that_cannot_be_made(gmbench: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(gmbench(*RUN, "--out", tmp_path / "file" / "runs"), "cannot write into", "--out")


def test_read_only_output_folder(gmbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def mkdir(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refused(gmbench(*RUN), "cannot write into", "Read-only file system")


def test_broken_manifest_is_skipped_in_list_and_an_error_when_asked_for(
    gmbench: Call, coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = tmp_path / "plugins"
    write_model(plugins / "torn", coins, capabilities="7")
    (plugins / "unclosed").mkdir()
    (plugins / "unclosed" / "plugin.toml").write_text('kind = "model')
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{plugins}")
    listed = gmbench("list")
    assert listed.code == 0 and "coin_model" in listed.out
    assert listed.err.count("warning: skipped") == 2 and "capabilities" in listed.err
    for verb in (("show", "torn"), ("check", "torn"), ("run", "--task", "coin_task", "--model", "torn")):
        refused(gmbench(*verb), "broken manifest", "capabilities")
    refused(gmbench("show", plugins / "unclosed"), "plugin.toml")


def test_two_plugins_of_one_name(gmbench: Call, coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = write_model(tmp_path / "plugins" / "twin", coins)
    monkeypatch.setenv("GMBENCH_PATH", f"{coins}:{twin.parent}")
    refused(gmbench(*RUN), "two model plugins", str(twin), str(coins / "coin_model"))
    assert "two model plugins" in gmbench("list").err
    refused(gmbench("run", "--task", "coin_task", "--model", twin), "two model plugins", str(twin), "a name of its own")


def test_plugin_that_cannot_be_imported(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "unimportable", coins)
    (folder / "model.py").write_text("import no_such_module_anywhere")
    refused(gmbench("run", "--task", "coin_task", "--model", folder), "cannot be imported", "no_such_module_anywhere")
    (folder / "model.py").write_text("class Other: ...")
    refused(gmbench("run", "--task", "coin_task", "--model", folder), "no CoinModel")


def test_error_in_a_plugin_is_one_line_with_its_place(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "faulty", coins, name='"faulty"')
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace("c = self.config\n", "c = self.config\n        1 / 0\n"))
    done = gmbench("run", "--task", "coin_task", "--model", folder)
    refused(done, "ZeroDivisionError", "faulty/model.py:", "--debug", code=1)
    with pytest.raises(ZeroDivisionError):
        gmbench("run", "--task", "coin_task", "--model", folder, "--debug")


def test_error_in_a_library_names_the_line_of_the_plugin(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "careless", coins, name='"careless"')
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace("c = self.config\n", "c = __import__('json').loads('{')\n"))
    refused(gmbench("run", "--task", "coin_task", "--model", folder), "JSONDecodeError", "careless/model.py:", code=1)


def test_log_prob_of_a_wrong_shape(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "wide", coins, name='"wide"')
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace(").sum(-1)", ")"))
    done = gmbench("run", "--task", "coin_task", "--model", folder)
    refused(done, "log_prob gave shape (1000, 4) for 1000 points where (1000,) is expected")


def test_samples_that_are_no_points(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "grey", coins, name='"grey"')
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace("sigmoid()).float()", "sigmoid()).float() / 2"))
    assert (folder / "model.py").read_text() != text
    refused(
        gmbench("run", "--task", "coin_task", "--model", folder), "sample gave what is no point", "other than 0 and 1"
    )


def test_a_number_that_no_distribution_can_have_is_said_at_once(gmbench: Call, coins: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "loud", coins, name='"loud"')
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace(").sum(-1)", ").sum(-1) * 0.2"))
    done = gmbench("run", "--task", "coin_task", "--model", folder)
    assert done.code == 0 and "better than the truth" in done.out and "cannot be submitted" in done.out
    assert "better than the truth" not in gmbench(*RUN).out


def test_a_model_that_cannot_have_the_headline_is_told_before_it_is_fitted(
    gmbench: Call, coins: Path, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "mute", coins, name='"mute"', capabilities='["sample"]')
    done = gmbench("run", "--task", "coin_task", "--model", folder, "--set", "nan_at_step=0")
    assert "note: no headline and no rank on" in done.err and "excess_nats needs log_prob" in done.err
    assert "no headline and no rank" not in gmbench(*RUN).err
    Path("some.txt").write_text("the cat sees a dog\n" * 300)
    stream = ("run", "--task", "text_file:some.txt", "--variant", "context=stream", "--track", "smoke", "--model")
    done = gmbench(*stream, "lstm_vae", "--set", "num_steps=1")
    assert "word_nats needs token_log_prob or score_text, which lstm_vae does not offer" in done.err
    assert "no headline" not in gmbench(*stream, "unigram").err


@pytest.mark.parametrize("seed", ["-1", "4294967296", "0..4294967296", "one"])
def test_seeds_that_are_none(gmbench: Call, seed: str) -> None:
    refused(gmbench(*RUN, "--seed", seed), "--seed", "seeds are")


def test_run_that_another_process_holds(gmbench: Call, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / gmbench(*RUN, "--dry-run", "--json").json["folder"]
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(gmbench(*RUN), "another process")


def test_records_of_a_wrong_schema(tmp_path: Path) -> None:
    from gmbench.errors import UserError
    from gmbench.record import read_record

    path = tmp_path / "record.json"
    path.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(UserError, match="not a valid record"):
        read_record(path)
