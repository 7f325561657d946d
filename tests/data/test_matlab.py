"""Reader of MATLAB files against files written by scipy, and its faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_array

from gmbench.data.matlab import read_mat
from gmbench.errors import UserError

X = np.arange(600, dtype=np.uint8).reshape(100, 6)
Y = np.array([1.5, -2.0, 3.0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.mat"
    names = np.array(["chair", "lamp"], dtype=object)
    savemat(path, {"X": X, "Y": Y, "names": names, "S": csc_array(np.eye(3))}, do_compression=True)
    return path


def test_named_arrays_only(path: Path) -> None:
    found = read_mat(path, "Y", "X")
    assert list(found) == ["Y", "X"]
    np.testing.assert_array_equal(found["X"], X)
    np.testing.assert_array_equal(found["Y"], Y[None])  # MATLAB's vectors are rows
    assert found["X"].dtype == np.uint8


def test_no_suffix_is_added(path: Path) -> None:
    bare = path.rename(path.with_suffix(".data"))
    assert read_mat(bare, "X")["X"].shape == (100, 6)
    with pytest.raises(UserError, match="no such file"):
        read_mat(bare.with_suffix(""), "X")


def test_wrong_names_and_kinds(path: Path) -> None:
    with pytest.raises(UserError, match=r"no array 'x' in it: .*known: S, X, Y, names") as caught:
        read_mat(path, "X", "x")
    assert str(caught.value).startswith(f"{path}: ")
    for name in ("names", "S"):
        with pytest.raises(UserError, match=f"'{name}' is no dense array of numbers"):
            read_mat(path, name)


def test_damaged_files(path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"no MATLAB file at all, just text of some length" * 9, whole[:60], whole[:200], whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_mat(path, "X", "Y", "names", "S")
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_version_7_3_is_named(path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(116) + b"\0" * 8 + b"\x00\x02IM"  # the version's two bytes, then the order
    path.write_bytes(header + b"\x89HDF\r\n\x1a\n" + b"\0" * 600)
    with pytest.raises(UserError, match=r"version 7\.3"):
        read_mat(path, "X")
