"""Spaces: what they accept as points, and the one line that they refuse others with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gmbench.spaces import BinaryVector, TokenPair, TokenSequence

SENTENCES = TokenSequence(6, 5, words=("", "", "<unk>", "a", "b", "c"))
STREAM = TokenSequence(6, 5, ends=False)


def rows(*values: list[int]) -> Tensor:
    return torch.tensor(values)


def test_sequences_end_once_and_are_padded_behind() -> None:
    SENTENCES.validate(rows([3, 4, 1, 0, 0], [1, 0, 0, 0, 0], [3, 3, 3, 3, 1]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (rows([3, 4, 1, 0]), "shape"),
        (rows([3, 4, 5, 5, 5]), "row 0 has 0 ends"),
        (rows([3, 1, 0, 0, 0], [3, 1, 4, 1, 0]), "row 1 has 2 ends"),
        (rows([3, 1, 4, 0, 0]), "padding"),
        (rows([3, 0, 4, 1, 0]), "padding"),
        (rows([3, 6, 1, 0, 0]), "token 6 outside of 0 … 5"),
        (rows([3, -1, 1, 0, 0]), "token -1"),
        (rows([3, 4, 1, 0, 0]).float(), "whole numbers"),
        (torch.empty(0, 5, dtype=torch.int64), "there are none"),
    ],
)
def test_what_is_no_sequence_is_refused_in_one_line(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SENTENCES.validate(x)
    assert "\n" not in str(error.value)


def test_windows_of_a_stream_are_full_and_may_hold_ends() -> None:
    STREAM.validate(rows([3, 1, 4, 1, 5]))
    with pytest.raises(ValueError, match="padding in a window"):
        STREAM.validate(rows([3, 1, 4, 1, 0]))


def test_text_leaves_out_what_is_no_word() -> None:
    assert SENTENCES.text(rows([3, 2, 5, 1, 0], [1, 0, 0, 0, 0])) == ["a <unk> c", ""]
    with pytest.raises(ValueError, match="not known"):
        STREAM.text(rows([3, 1, 4, 1, 5]))


def test_pairs_are_side_by_side() -> None:
    space = TokenPair(TokenSequence(4, 3), TokenSequence(6, 4))
    x = rows([2, 1, 0, 5, 5, 1, 0])
    space.validate(x)
    source, target = space.split(x)
    assert source.tolist() == [[2, 1, 0]] and target.tolist() == [[5, 5, 1, 0]]
    with pytest.raises(ValueError, match=r"targets: row 0 has 0 ends"):
        space.validate(rows([2, 1, 0, 5, 5, 5, 5]))
    with pytest.raises(ValueError, match="sources: token 5"):
        space.validate(rows([5, 1, 0, 5, 5, 1, 0]))
    with pytest.raises(ValueError, match="shape"):
        space.validate(x[:, 1:])


def test_cast_never_changes_a_token() -> None:
    assert SENTENCES.cast(torch.tensor([[3.0, 1.0]])).dtype == torch.int64
    with pytest.raises(ValueError, match="whole numbers"):
        SENTENCES.cast(torch.tensor([[3.5, 1.0]]))
    assert BinaryVector(2).cast(torch.tensor([[True, False]])).dtype == torch.float32


def test_the_smallest_space_has_the_least_size() -> None:
    assert BinaryVector(3).size < BinaryVector(4).size
    assert SENTENCES.size < TokenPair(SENTENCES, SENTENCES).size
