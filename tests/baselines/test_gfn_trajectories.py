"""Walks, sampling and the likelihood bound of the GFlowNet, against its policies evaluated one state at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gmbench.baselines.energy.ebm_gfn.exact import all_states, all_vectors, terminal_log_prob
from gmbench.baselines.energy.ebm_gfn.policy import Policy, bits, signed
from gmbench.baselines.energy.ebm_gfn.trajectories import log_prob, sample, walk

BACKWARD = ["learned", "uniform"]


def make_policy(
    backward: str, num_bits: int, *, sharpness: float = 1.0, hidden: int = 32, num_layers: int = 2
) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = Policy(num_bits, backward=backward, hidden=hidden, num_layers=num_layers)  # type: ignore[arg-type]
    with torch.no_grad():
        policy.mlp.layers[-1].weight.mul_(sharpness)
        policy.mlp.layers[-1].bias.mul_(sharpness)
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_ratio_of_path(policy: Policy, low: Tensor, high: Tensor, climb: Tensor) -> Tensor:
    """sum log P_F - log P_B from the states `low` to `high`, setting the locations `climb` (N, K) in this order."""
    s, total = low.clone(), torch.zeros(len(low), dtype=torch.float64)
    rows = torch.arange(len(low))
    for location in climb.unbind(1):
        value = high[rows, location]
        after = s.clone()
        after[rows, location] = value
        total = total + policy.log_pf(s)[rows, (value > 0).long(), location]
        total = total - policy.log_pb(after)[rows, location]
        s = after
    assert torch.equal(s, high)
    return total


@pytest.mark.parametrize("backward", BACKWARD)
def test_policies_are_distributions_over_legal_actions(backward: str) -> None:
    policy, s = make_policy(backward, 4, sharpness=5), all_states(4)
    p_f, p_b = policy.log_pf(s).exp(), policy.log_pb(s).exp()
    unfinished, begun = (s == 0).any(1), (s != 0).any(1)
    torch.testing.assert_close(p_f[unfinished].sum((1, 2)), torch.ones(int(unfinished.sum())))
    torch.testing.assert_close(p_b[begun].sum(1), torch.ones(int(begun.sum())))
    assert (p_f[(s != 0)[:, None].expand_as(p_f) & unfinished[:, None, None]] == 0).all()
    assert (p_b[(s == 0) & begun[:, None]] == 0).all()


@pytest.mark.parametrize("num_steps", [1, 3, 5])
@pytest.mark.parametrize("backward", BACKWARD)
def test_log_ratio_of_both_directions_equals_the_policies_along_the_path(backward: str, num_steps: int) -> None:
    policy = make_policy(backward, 5, sharpness=8)
    x = signed(all_vectors(5))
    low = x.clone()
    low[:, :num_steps] = 0  # K unset locations to walk up
    start = torch.cat([low, x])
    result = walk(policy, start, num_up=len(x), num_steps=num_steps, rng=generator())
    up, down = slice(0, len(x)), slice(len(x), None)
    assert (result.s[up] != 0).all() and ((result.s[down] != 0).sum(1) == 5 - num_steps).all()
    assert ((result.s[down] == x) | (result.s[down] == 0)).all()
    expected = torch.cat(
        [
            log_ratio_of_path(policy, low, result.s[up], result.order[up]),
            log_ratio_of_path(policy, result.s[down], x, result.order[down].flip(1)),
        ]
    )
    torch.testing.assert_close(result.log_ratio, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backward", BACKWARD)
def test_samples_follow_the_exact_distribution(backward: str) -> None:
    policy, num = make_policy(backward, 4, sharpness=8), 40_000
    p = terminal_log_prob(policy).exp()
    x = sample(policy, num, rng=generator())
    counts = ((x @ (2.0 ** torch.arange(4))).long()).bincount(minlength=16).double()
    chi2 = ((counts - num * p).square() / (num * p)).sum()
    assert p.max() > 3 * p.min()  # a policy that is far from uniform, or this test sees nothing
    assert chi2 < 37.7  # the .999 quantile of 15 degrees of freedom


@pytest.mark.parametrize("backward", BACKWARD)
def test_backward_walks_follow_p_b(backward: str) -> None:
    policy, num = make_policy(backward, 4, sharpness=8), 20_000
    x = torch.tensor([[1.0, -1.0, -1.0, 1.0]]).expand(num, 4)
    result = walk(policy, x, num_up=0, num_steps=2, rng=generator())
    counts = (result.order[:, 0] * 4 + result.order[:, 1]).bincount(minlength=16).double()
    expected = torch.zeros(16, dtype=torch.float64)
    first = policy.log_pb(x[:1])[0].exp().detach()
    for i in range(4):
        s = x[:1].clone()
        s[0, i] = 0
        second = policy.log_pb(s)[0].exp().detach()
        for j in range(4):
            expected[4 * i + j] = float(first[i] * second[j]) * num
    legal = expected > 0
    assert counts[~legal].sum() == 0
    assert ((counts - expected).square() / expected)[legal].sum() < 31.3  # the .999 quantile, 11 degrees of freedom


@pytest.mark.parametrize("backward", BACKWARD)
def test_untrained_net_of_32_bits_has_about_the_likelihood_of_the_uniform_distribution(backward: str) -> None:
    """-32 ln 2 = -22.18 for *both*: published code gives +22.19 for the uniform policy."""
    policy = make_policy(backward, 32, hidden=256, num_layers=3)
    x = torch.randint(2, (200, 32), generator=generator()).float()
    bound = log_prob(policy, x, num_trajectories=5, rng=generator()).mean()
    assert float(bound) == pytest.approx(-32 * math.log(2), abs=0.05)


@pytest.mark.parametrize(("backward", "sharpness"), [("learned", 3), ("uniform", 8)])
def test_nll_falls_to_the_exact_value_as_trajectories_grow(backward: str, sharpness: float) -> None:
    policy = make_policy(backward, 6, sharpness=sharpness)
    exact = -terminal_log_prob(policy)
    x = all_vectors(6)
    gaps = []
    for num_trajectories in (1, 5, 20, 100):
        estimates = [-log_prob(policy, x, num_trajectories=num_trajectories, rng=generator(s)) for s in range(20)]
        gaps.append(float((torch.stack(estimates) - exact).mean()))
    assert gaps[0] > 0.05
    assert gaps[0] > 1.5 * gaps[1] > 3 * gaps[2] > 6 * gaps[3]
    assert gaps[3] == pytest.approx(0, abs=0.01)


def test_log_prob_in_chunks_tends_to_the_exact_value() -> None:
    policy, x = make_policy("learned", 4, sharpness=3), all_vectors(4)
    exact = terminal_log_prob(policy)
    torch.testing.assert_close(
        log_prob(policy, x, num_trajectories=2000, rng=generator(), chunk_size=777), exact, rtol=0, atol=0.05
    )


@pytest.mark.parametrize("backward", BACKWARD)
def test_exploration_moves_the_walk_but_not_its_rating(backward: str) -> None:
    policy, num = make_policy(backward, 3, sharpness=30), 30_000
    empty = torch.zeros(num, 3)
    walks = {
        "uniform": walk(policy, empty, num_up=num, num_steps=3, rng=generator(), epsilon=1.0),
        "hot": walk(policy, empty, num_up=num, num_steps=3, rng=generator(), temperature=1e6),
    }
    for result in walks.values():
        share = ((bits(result.s) @ (2.0 ** torch.arange(3))).long()).bincount(minlength=8) / num
        torch.testing.assert_close(share, torch.full((8,), 1 / 8), rtol=0, atol=0.01)
        expected = log_ratio_of_path(policy, empty[:50], result.s[:50], result.order[:50])
        torch.testing.assert_close(result.log_ratio[:50], expected, rtol=1e-5, atol=1e-5)
    assert float((terminal_log_prob(policy).exp() - 1 / 8).abs().max()) > 0.05
