"""Pictures: PNG bytes that depend on the input alone."""

from __future__ import annotations

import math
import sys
from io import BytesIO

import matplotlib
import matplotlib.image
import pytest
import torch

from gmbench.tasks.discrete.synthetic2d.cells import cell_centres
from gmbench.tasks.discrete.synthetic2d.pictures import energy_map, scatter_beside_data


def points(seed: int) -> torch.Tensor:
    return torch.randn(300, 2, generator=torch.Generator().manual_seed(seed))


def test_same_input_same_bytes_whatever_the_global_settings() -> None:
    first = scatter_beside_data(points(0), points(1), 5.0, "title")
    with matplotlib.rc_context({"axes.facecolor": "red", "savefig.dpi": 30}):
        again = scatter_beside_data(points(0), points(1), 5.0, "title")
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    other = scatter_beside_data(points(2), points(1), 5.0, "title")
    assert first == again != other
    assert first.startswith(b"\x89PNG") and b"Software" not in first and b"Creation" not in first


def test_no_pyplot() -> None:
    before = "matplotlib.pyplot" in sys.modules
    scatter_beside_data(points(0), points(1), 5.0)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_energy_map_has_x_to_the_right_and_y_upwards() -> None:
    centres = cell_centres(1.0, 8)
    bright_corner = torch.where((centres[:, 0] > 0) & (centres[:, 1] < 0), 0.0, -math.inf)  # the lower right quarter
    picture = matplotlib.image.imread(BytesIO(energy_map(bright_corner, 1.0)))
    height, width = picture.shape[:2]
    brightness = picture[..., :2].sum(2)
    left, right = brightness[:, int(0.25 * width)], brightness[:, int(0.65 * width)]
    assert right[int(0.7 * height)] > 1.5 > right[int(0.3 * height)]
    assert left[int(0.7 * height)] < 1.5


@pytest.mark.parametrize("value", [-math.inf, math.nan, 0.0])
def test_energy_map_of_degenerate_values(value: float) -> None:
    assert energy_map(torch.full((4, 4), value), 1.0).startswith(b"\x89PNG")
