"""Back-and-forth negatives: transition matrices by enumeration of all paths, for an arbitrary untrained policy."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor

from gmbench.baselines.energy.ebm_gfn.back_and_forth import back_and_forth, num_deleted, propose
from gmbench.baselines.energy.ebm_gfn.exact import all_states, all_vectors
from gmbench.baselines.energy.ebm_gfn.policy import Policy
from gmbench.samplers.metropolis import acceptance_probability

BACKWARD = ["learned", "uniform"]


def make_policy(backward: str, num_bits: int) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        policy = Policy(num_bits, backward=backward, hidden=24, num_layers=2)  # type: ignore[arg-type]
    with torch.no_grad():
        policy.mlp.layers[-1].weight.mul_(6)
    return policy


def log_f_table(num_bits: int) -> Tensor:
    return 1.5 * torch.randn(2**num_bits, generator=torch.Generator().manual_seed(4))


def index(x: Tensor) -> Tensor:
    return (x @ (2.0 ** torch.arange(x.shape[1]))).long()


def transition_matrix(policy: Policy, log_f: Tensor, num_steps: int, rule: Literal["metropolis", "barker"]) -> Tensor:
    """T(x, x') by summing over the orders of both paths, from one table of each policy."""
    num_bits, num = policy.num_bits, 2**policy.num_bits
    states = all_states(num_bits)
    log_pf, log_pb = policy.log_pf(states).double(), policy.log_pb(states).double()
    place = 3 ** torch.arange(num_bits)
    vectors = all_vectors(num_bits).long()
    full = ((vectors + 1) * place).sum(1)  # rows of the complete states
    orders = list(itertools.permutations(range(num_bits), num_steps))
    # Sums of log P_F and of log P_B along the path that clears `order` from each x.
    path_f, path_b = torch.zeros(2, len(orders), num, dtype=torch.float64)
    for o, order in enumerate(orders):
        row = full.clone()
        for d in order:
            value = vectors[:, d]
            path_b[o] += log_pb[row, d]
            row = row - (value + 1) * place[d]
            path_f[o] += log_pf[row, value, d]
    transition = torch.zeros(num, num, dtype=torch.float64)
    for o, p in itertools.product(range(len(orders)), range(len(orders))):
        if set(orders[o]) != set(orders[p]):
            continue
        kept = [d for d in range(num_bits) if d not in orders[o]]
        same_s = (vectors[:, None, kept] == vectors[None, :, kept]).all(2)
        log_q = path_b[o][:, None] + path_f[p][None, :]  # down tau = o from x, up tau' = p to x'
        log_q_reverse = path_f[o][:, None] + path_b[p][None, :]
        log_ratio = log_f[None, :] - log_f[:, None] + log_q_reverse - log_q
        transition += torch.where(same_s, log_q.exp() * acceptance_probability(log_ratio, rule), 0.0)
    return transition + torch.diag(1 - transition.sum(1))


@pytest.mark.parametrize("rule", ["metropolis", "barker"])
@pytest.mark.parametrize(("num_bits", "num_steps"), [(3, 1), (3, 3), (4, 2), (4, 4)])
@pytest.mark.parametrize("backward", BACKWARD)
def test_detailed_balance_stationarity_and_agreement_with_the_code(
    backward: str, num_bits: int, num_steps: int, rule: Literal["metropolis", "barker"]
) -> None:
    policy, log_f = make_policy(backward, num_bits), log_f_table(num_bits)
    with torch.no_grad():
        transition = transition_matrix(policy, log_f.double(), num_steps, rule)
    p = log_f.double().softmax(0)
    flow = p[:, None] * transition
    torch.testing.assert_close(flow, flow.t(), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(p @ transition, p, rtol=1e-6, atol=0)
    assert (transition.diag() >= 0).all()

    num = 4000  # chains from each x
    x = all_vectors(num_bits).repeat_interleave(num, 0)
    rng = torch.Generator().manual_seed(5)
    result = back_and_forth(policy, lambda x: log_f[index(x)], x, num_steps=num_steps, rng=rng, rule=rule)
    counts = (index(x) * 2**num_bits + index(result.x)).bincount(minlength=4**num_bits).view(2**num_bits, -1)
    z = (counts - num * transition) / (num * transition * (1 - transition)).sqrt().clamp_min(1)
    assert (counts[transition == 0] == 0).all()
    assert float(z.abs().max()) < 5
    assert 0 < float(result.accept_rate) < 1


@pytest.mark.parametrize("backward", BACKWARD)
def test_accepting_everything_is_not_invariant_but_the_test_would_tell(backward: str) -> None:
    policy, log_f, num = make_policy(backward, 3), log_f_table(3), 20_000
    p = log_f.double().softmax(0)
    rng = torch.Generator().manual_seed(6)
    x = all_vectors(3)[torch.multinomial(p, num, replacement=True, generator=rng)]
    shift = {}
    for rule in ("metropolis", "barker", None):
        y = back_and_forth(policy, lambda x: log_f[index(x)], x, num_steps=3, rng=rng, rule=rule)  # type: ignore[arg-type]
        shift[rule] = 0.5 * float((index(y.x).bincount(minlength=8) / num - p).abs().sum())
    assert shift["metropolis"] < 0.02 and shift["barker"] < 0.02
    assert shift[None] > 0.1


@pytest.mark.parametrize("backward", BACKWARD)
def test_proposals_change_at_most_k_bits_and_leave_no_graph(backward: str) -> None:
    policy, x = make_policy(backward, 8), torch.ones(50, 8)
    proposal = propose(policy, x, num_steps=3, rng=torch.Generator().manual_seed(7))
    changed = (proposal.x != x).sum(1)
    assert int(changed.max()) <= 3 and int(changed.max()) > 0
    assert ((proposal.x == 0) | (proposal.x == 1)).all()
    assert not proposal.x.requires_grad and not proposal.log_ratio.requires_grad


def test_number_of_deleted_bits_grows_from_one_to_all() -> None:
    k = [num_deleted(step, num_bits=32, warmup=1000) for step in range(1500)]
    assert k[0] == 1 and k[61] == 1 and k[62] == 2  # 32 * 63 / 1000 = 2.016
    assert k[998] == 31 and k[999] == 32 and k[-1] == 32
    assert k == sorted(k)
