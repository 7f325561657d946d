"""Images inside zip files: what is read, that nothing is written, and the faults."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmbench.data import zip_images
from gmbench.data.zip_images import read_zip_images
from gmbench.errors import UserError

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
INK = np.random.default_rng(1).integers(0, 2, (9, 4)).astype(bool)


def png(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG", **options)  # type: ignore[arg-type]
    return file.getvalue()


def zipped(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_matching_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    members = [("a/b/2.png", png(GREY)), ("a/1.png", png(INK)), ("a/", b""), ("c/3.png", png(GREY)), ("a/x.txt", b"x")]
    found = read_zip_images(zipped(tmp_path / "images.zip", members), "a/*.png")
    assert list(found) == ["a/1.png", "a/b/2.png"]
    np.testing.assert_array_equal(found["a/b/2.png"], GREY)
    np.testing.assert_array_equal(found["a/1.png"], INK * np.uint8(255))
    assert all(image.dtype == np.uint8 for image in found.values())


def test_odd_names_reach_no_disk(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../../outside.png", "/absolute.png", "C:\\windows.png", "new\nline.png"]
    path = zipped(inside / "images.zip", [(name, png(GREY)) for name in names])
    assert len(read_zip_images(path, "*.png")) == 4
    assert sorted(tmp_path.rglob("*")) == [inside, path]


def corrupted(content: bytes) -> bytes:
    """With one byte of the packed first member changed."""
    at = content.index(b"IDAT") + 10
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


MEMBERS = [("images/1.png", png(GREY)), ("images/2.png", png(INK))]
FAULTS: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "nothing matches": ([("other/1.png", png(GREY))], "nothing in it matches 'images/\\*.png'"),
    "two of one name": ([MEMBERS[0], MEMBERS[0]], "two members share a name"),
    "colours": ([("images/1.png", png(np.zeros((4, 4, 3), np.uint8)))], "'images/1.png' has the mode RGB"),
    "16 bits": ([("images/1.png", png(np.zeros((4, 4), np.uint16)))], "'images/1.png' has the mode I;16"),
    "text": ([("images/1.png", b"no picture")], "'images/1.png' is no PNG file"),
    "half a picture": ([("images/1.png", png(GREY)[:-40])], "'images/1.png' is no PNG file, or a damaged one"),
    "another format": ([("images/1.png", b"GIF89a" + b"\0" * 99)], "'images/1.png' is no PNG file"),
    "odd name": ([("images/\n1.png", b"no picture")], r"'images/\\n1.png' is no PNG file"),
    "empty member": ([("images/1.png", b"")], "'images/1.png' is no PNG file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_members(tmp_path: Path, fault: str) -> None:
    members, message = FAULTS[fault]
    path = zipped(tmp_path / "images.zip", members)
    with pytest.raises(UserError, match=message) as caught:
        read_zip_images(path, "images/*.png")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_damaged_archives(tmp_path: Path) -> None:
    stored = zipped(tmp_path / "stored.zip", MEMBERS, zipfile.ZIP_STORED).read_bytes()
    whole = zipped(tmp_path / "whole.zip", MEMBERS).read_bytes()
    path = tmp_path / "images.zip"
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], whole[30:200], corrupted(stored)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="truncated or damaged zip file") as caught:
            read_zip_images(path, "images/*.png")
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_zip_images(tmp_path / "missing.zip", "*")


def test_a_password_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "images.zip", MEMBERS[:1], zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption in the member's header, and in the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="password"):
        read_zip_images(path, "*.png")


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "images.zip", [("bomb.png", b"\0" * 5000)])
    monkeypatch.setattr(zip_images, "MAX_BYTES", 4999)
    with pytest.raises(UserError, match=r"'bomb\.png' unpacks to more than 4999 bytes"):
        read_zip_images(path, "*.png")
