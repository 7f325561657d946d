"""The Gray code: its published scale, its bits, and that it is a bijection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles, make_moons, make_swiss_roll

from gmbench.tasks.discrete.synthetic2d.gray import F_SCALE, GrayCode, all_codes, code_index

INT_SCALE = {
    "2spirals": 5978.486,
    "8gaussians": 5289.618,
    "circles": 5668.638,
    "moons": 5779.756,
    "pinwheel": 5510.877,
    "swissroll": 6222.632,
    "checkerboard": 5461.865,
}


def published_points(name: str, num: int, rng: np.random.RandomState) -> np.ndarray:
    """The published generators draw for draw (stratified angles and all), for the scale that they define."""
    if name == "swissroll":
        return make_swiss_roll(num, noise=1.0, random_state=rng)[0].astype("float32")[:, [0, 2]] / 5
    if name == "circles":
        return make_circles(num, factor=0.5, noise=0.08, random_state=rng)[0].astype("float32") * 3
    if name == "moons":
        return make_moons(num, noise=0.1, random_state=rng)[0].astype("float32") * 2 + np.array([-1, -0.2])
    if name == "8gaussians":
        d = 1 / np.sqrt(2)
        centres = 4 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (d, d), (d, -d), (-d, d), (-d, -d)])
        points = []
        for _ in range(num):
            noise = rng.randn(2) * 0.5
            points.append(noise + centres[rng.randint(8)])
        return np.array(points, dtype="float32") / 1.414
    if name == "pinwheel":
        features = rng.randn(num // 5 * 5, 2) * np.array([0.3, 0.1]) + np.array([1, 0])
        a = np.repeat(np.linspace(0, 2 * np.pi, 5, endpoint=False), num // 5) + 0.25 * np.exp(features[:, 0])
        r, v = features.T
        return 2 * np.stack([r * np.cos(a) + v * np.sin(a), -r * np.sin(a) + v * np.cos(a)], 1)
    if name == "2spirals":
        n = np.sqrt(rng.rand(num // 2, 1)) * 3 * np.pi
        x = -np.cos(n) * n + rng.rand(num // 2, 1) * 0.5
        y = np.sin(n) * n + rng.rand(num // 2, 1) * 0.5
        points = np.vstack([np.hstack([x, y]), np.hstack([-x, -y])]) / 3
        return points + rng.randn(*points.shape) * 0.1
    x = rng.rand(num) * 4 - 2
    y = rng.rand(num) - rng.randint(0, 2, num) * 2
    return 2 * np.stack([x, y + np.floor(x) % 2], 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", F_SCALE)
def test_scale_is_the_published_one(name: str) -> None:
    points = published_points(name, 5000, np.random.RandomState(1))
    assert float(1 + np.abs(points).max()) == pytest.approx(F_SCALE[name], rel=1e-12)
    assert GrayCode.of(name).int_scale == pytest.approx(INT_SCALE[name], abs=6e-4)
    assert GrayCode.of(name, 16).int_scale == pytest.approx(INT_SCALE[name] / 2**8, abs=1e-5)


def test_bits_of_a_worked_example() -> None:
    code = GrayCode(f_scale=127.0, bits=16)  # one cell per unit
    x = code.encode(torch.tensor([[5.9, -0.3], [-127.5, 64.0]]))
    assert x.dtype == torch.float32
    expected = [
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],  # 5 = 101, Gray 111; minus zero
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0],  # 127 = 1111111, Gray 1000000; 64, Gray 1100000
    ]
    assert x.long().tolist() == expected
    assert code.decode(x).tolist() == [[5.5, -0.5], [-127.5, 64.5]]


def test_16_bits_are_a_bijection_onto_the_cells() -> None:
    code = GrayCode.of("moons", 16)
    x = all_codes(16)
    assert torch.equal(code_index(x), torch.arange(1 << 16))
    assert torch.equal(code.encode(code.decode(x)), x)
    cell = code.cell(x)
    assert len((cell[:, 0] * 256 + cell[:, 1]).unique()) == 1 << 16
    assert cell.min() == 0 and cell.max() == 255


@pytest.mark.parametrize("bits", [16, 32])
def test_decoding_returns_the_centre_of_the_cell(bits: int) -> None:
    code = GrayCode.of("2spirals", bits)
    points = (2 * torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)).double() - 1) * code.half_width
    x = code.encode(points)
    assert x.shape == (5000, bits)
    assert float((code.decode(x) - points).abs().max()) <= code.side / 2 * (1 + 1e-6)
    assert torch.equal(code.encode(code.decode(x)), x)


@pytest.mark.parametrize("bits", [16, 32])
def test_neighbours_on_an_axis_differ_in_one_bit(bits: int) -> None:
    code = GrayCode.of("pinwheel", bits)
    line = (torch.arange(-100, 100).double() + 0.5) / code.int_scale
    x = code.encode(torch.stack([line, torch.zeros_like(line)], 1))
    assert ((x[1:] - x[:-1]).abs().sum(1) == 1).all()  # over zero it is the sign alone


def test_points_outside_go_to_the_nearest_cell_and_are_counted() -> None:
    code = GrayCode.of("circles")
    edge = code.half_width
    points = torch.tensor([[edge + 1, 0.0], [-2 * edge, 0.0], [0.5 * edge, 0.2]]).double()
    assert code.num_outside(points) == 2
    assert code.cell(code.encode(points))[:2, 0].tolist() == [2**16 - 1, 0]


def test_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="16 or 32"):
        GrayCode(4.0, 24)
    with pytest.raises(ValueError, match="too many"):
        all_codes(32)
