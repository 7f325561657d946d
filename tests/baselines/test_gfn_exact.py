"""The dynamic programme over partial states, against sums over all orders."""

from __future__ import annotations

import itertools

import pytest
import torch

from gmbench.baselines.energy.ebm_gfn.exact import all_states, all_vectors, terminal_log_prob
from gmbench.baselines.energy.ebm_gfn.policy import Policy, signed


def make_policy(backward: str, num_bits: int) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        policy = Policy(num_bits, backward=backward, hidden=24, num_layers=2)  # type: ignore[arg-type]
    with torch.no_grad():
        policy.mlp.layers[-1].weight.mul_(8)
    return policy


def test_states_and_vectors_are_enumerated_in_their_documented_order() -> None:
    assert all_vectors(3)[6].tolist() == [0, 1, 1]
    states = all_states(3)
    assert states[1 + 2 * 9].tolist() == [-1, 0, 1]
    assert len(states.unique(dim=0)) == 27


@pytest.mark.parametrize("backward", ["learned", "uniform"])
def test_equals_the_sum_over_all_orders(backward: str) -> None:
    policy, x = make_policy(backward, 4), all_vectors(4)
    total = torch.zeros(16, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        s, log_pf = torch.zeros(16, 4), torch.zeros(16, dtype=torch.float64)
        for d in order:
            log_pf += policy.log_pf(s)[torch.arange(16), x[:, d].long(), d].detach()
            s[:, d] = signed(x)[:, d]
        total += log_pf.exp()
    torch.testing.assert_close(terminal_log_prob(policy, chunk_size=5).exp(), total, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backward", ["learned", "uniform"])
def test_sums_to_one(backward: str) -> None:
    assert float(terminal_log_prob(make_policy(backward, 8)).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_too_many_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 12 bits"):
        terminal_log_prob(make_policy("uniform", 13))
