"""Files of data are found in either form, downloaded from their address, and never taken unchecked."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import ValidationError

from gmbench.data import local
from gmbench.data.text_lines import read_lines
from gmbench.errors import UserError
from gmbench.plugin import DataFile

TEXT = b"one\ntwo\n"
PACKED = gzip.compress(TEXT, mtime=0)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(**changes: str) -> DataFile:
    fields = {"path": "some/text.gz", "sha256": sha256(PACKED), "unpacked_sha256": sha256(TEXT)}
    return DataFile.model_validate(fields | changes)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's folder and the cache, both empty."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    monkeypatch.setenv("GMBENCH_DATA", str(own))
    monkeypatch.setattr(local, "cache_folder", lambda: cache)
    (own / "some").mkdir(parents=True)
    return own, cache


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server on this machine offers the files of a folder, `served`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("name", "content"), [("text.gz", PACKED), ("text", TEXT)])
def test_a_packed_file_serves_unpacked_as_well(folders: tuple[Path, Path], name: str, content: bytes) -> None:
    path = folders[0] / "some" / name
    assert local.status(file()) == "missing"
    path.write_bytes(content)
    assert local.status(file()) == "ok" and local.fetch(file()) == path and read_lines(path) == ["one", "two"]
    path.write_bytes(content[:-1])
    assert local.status(file()) == "damaged"
    with pytest.raises(UserError, match=f"{name} is damaged"):
        local.fetch(file())


def test_a_download_is_checked_and_kept(folders: tuple[Path, Path], address: str, tmp_path: Path) -> None:
    wanted, served = file(url=f"{address}/text"), tmp_path / "served" / "text"
    served.write_bytes(TEXT + b"another")
    with pytest.raises(UserError, match="the download is damaged"):
        local.fetch(wanted)
    assert local.status(wanted) == "missing"
    served.write_bytes(TEXT)
    assert local.fetch(wanted) == folders[1] / "some" / "text"
    served.unlink()
    assert read_lines(local.fetch(wanted)) == ["one", "two"]  # from the cache


def test_without_another_form_the_address_gives_the_file(
    folders: tuple[Path, Path], address: str, tmp_path: Path
) -> None:
    (tmp_path / "served" / "text.gz").write_bytes(PACKED)
    found = local.fetch(file(url=f"{address}/text.gz", unpacked_sha256=""))
    assert found == folders[1] / "some" / "text.gz" and found.read_bytes() == PACKED


def test_an_address_that_does_not_answer(folders: tuple[Path, Path], address: str) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded from .*GMBENCH_DATA"):
        local.fetch(file(url=f"{address}/nothing"))


def test_where_to_put_a_file_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for state, named in (
        ("not set", ""),
        (f"{folders[0]}", f"{folders[0]}"),
        ("/nowhere, which is no folder", "/nowhere"),
    ):
        monkeypatch.setenv("GMBENCH_DATA", named)
        with pytest.raises(UserError) as caught:
            local.fetch(file())
        assert f"(now: {state}), or into {folders[1]}" in str(caught.value)


def test_only_a_packed_file_has_another_form() -> None:
    with pytest.raises(ValidationError, match="is not packed"):
        file(path="some/text")
