"""Cells of the coarse grid: indices, and masses against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from gmbench.tasks.discrete.synthetic2d.cells import cell_centres, cell_edges, cell_index, cell_masses
from gmbench.tasks.discrete.synthetic2d.densities import NAMES, density


def test_centres_lie_in_their_cells() -> None:
    centres = cell_centres(5.3, 32)
    assert torch.equal(cell_index(centres, 5.3, 32), torch.arange(1024))
    assert cell_index(torch.tensor([[-9.0, 9.0], [5.3, -5.3]]), 5.3, 32).tolist() == [31, 31 * 32]


def test_masses_of_gaussians_are_differences_of_cdfs() -> None:
    edges = cell_edges(5.0, 32).numpy()
    truth = np.zeros((32, 32))
    for k in range(8):
        x, y = 4 / 1.414 * np.cos(k * np.pi / 4), 4 / 1.414 * np.sin(k * np.pi / 4)
        along_x, along_y = (np.diff(stats.norm.cdf(edges, centre, 0.5 / 1.414)) for centre in (x, y))
        truth += np.outer(along_x, along_y) / 8
    masses = cell_masses(density("8gaussians"), 5.0, 32).reshape(32, 32).numpy()
    np.testing.assert_allclose(masses, truth, atol=1e-7)


def test_masses_of_the_checkerboard_are_areas() -> None:
    masses = cell_masses(density("checkerboard"), 5.0, 10).reshape(10, 10)  # unit cells, none straddles an edge
    assert float(masses.sum()) == pytest.approx(1, abs=1e-12)
    assert masses[5, 5] == masses[1, 1] == 1 / 32 and masses[0].sum() == 0 and masses[5, 3] == 0
    straddling = cell_masses(density("checkerboard"), 4.5, 3).reshape(3, 3)  # cells of side 3
    assert float(straddling[1, 1]) == pytest.approx(2 * 1.5 * 1.5 / 32, abs=1e-12)  # quarters of two of its squares


@pytest.mark.parametrize("name", NAMES)
def test_coarse_boxes_are_sums_of_fine_boxes(name: str) -> None:
    """The two cut the region into panels of different sizes, so that an error of the quadrature would show."""
    x, y = (low + 2 * torch.linspace(0, 1, 17, dtype=torch.float64) for low in (-0.7, 0.4))
    coarse = density(name).box_masses(x[::4], y[::4])
    fine = density(name).box_masses(x, y).reshape(4, 4, 4, 4).sum((1, 3))
    torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-7)
