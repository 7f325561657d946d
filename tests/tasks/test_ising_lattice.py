from __future__ import annotations

import pytest
import torch

from gmbench.tasks.discrete.ising.lattice import (
    adjacency,
    couplings,
    edge_couplings,
    log_weight,
    supported_by_lattice,
)


@pytest.mark.parametrize(("boundary", "num_edges"), [("periodic", 50), ("open", 40)])
def test_adjacency_is_symmetric_with_the_right_number_of_edges(boundary, num_edges):
    A = adjacency(5, boundary=boundary)
    assert torch.equal(A, A.mT)
    assert A.diagonal().eq(0).all()
    assert A.sum() == 2 * num_edges
    assert set(A.unique().tolist()) == {0.0, 1.0}


def test_neighbours_in_row_major_order():
    periodic = adjacency(4)
    assert periodic[0].nonzero().squeeze(1).tolist() == [1, 3, 4, 12]
    assert periodic[6].nonzero().squeeze(1).tolist() == [2, 5, 7, 10]
    assert adjacency(4, boundary="open")[0].nonzero().squeeze(1).tolist() == [1, 4]
    assert adjacency(2, boundary="open").sum() == 8


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 3"):
        adjacency(2)
    with pytest.raises(ValueError, match="boundary"):
        adjacency(4, boundary="twisted")
    with pytest.raises(ValueError, match="9 x 9"):
        edge_couplings(torch.zeros(16, 16), 3)


def test_log_weight_counts_both_orders_of_each_pair_and_spins_of_plus_minus_one():
    side, sigma = 3, 0.3
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (20, 9), generator=rng).float()
    expected = []
    for state in x:
        s = [1 if bit else -1 for bit in state.tolist()]
        edges = 0
        for r in range(side):
            for c in range(side):
                here = s[r * side + c]
                edges += here * s[r * side + (c + 1) % side] + here * s[(r + 1) % side * side + c]
        expected.append(2 * sigma * edges)  # K = 2 sigma an edge
    torch.testing.assert_close(log_weight(x, couplings(side, sigma)), torch.tensor(expected, dtype=torch.float64))


def test_flipping_one_spin_of_the_ordered_state_costs_sixteen_sigma():
    up = torch.ones(1, 25)
    flipped = up.clone()
    flipped[0, 7] = 0
    J = couplings(5, 0.2)
    assert float(log_weight(up, J) - log_weight(flipped, J)) == pytest.approx(16 * 0.2)


def test_supported_by_lattice():
    J = couplings(4, 0.2)
    assert supported_by_lattice(J, 4)
    assert supported_by_lattice(couplings(4, -0.2, boundary="open"), 4)
    assert supported_by_lattice(J + torch.eye(16), 4)  # the diagonal is a constant
    J[0, 5] = 0.01
    assert not supported_by_lattice(J, 4)
    assert supported_by_lattice(J, 4, tol=0.01)
    J[5, 0] = -0.01  # only the symmetric part matters
    assert supported_by_lattice(J, 4)


def test_edge_couplings_rebuild_the_energy():
    rng = torch.Generator().manual_seed(1)
    J = adjacency(4) * torch.randn(16, 16, dtype=torch.float64, generator=rng)  # asymmetric on purpose
    right, down = edge_couplings(J, 4)
    x = torch.randint(0, 2, (30, 16), generator=rng).float()
    s = (2 * x - 1).double().reshape(-1, 4, 4)
    energy = (right * s * s.roll(-1, 2) + down * s * s.roll(-1, 1)).sum((1, 2))
    torch.testing.assert_close(energy, log_weight(x, J))
