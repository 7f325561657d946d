"""Trajectory balance: its gradient against automatic differentiation, its zero at the optimum, short trainings."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gmbench.baselines.energy.ebm_gfn.exact import all_states, all_vectors, terminal_log_prob
from gmbench.baselines.energy.ebm_gfn.loss import trajectory_balance
from gmbench.baselines.energy.ebm_gfn.policy import Policy, signed
from gmbench.baselines.energy.ebm_gfn.trajectories import walk

BACKWARD = ["learned", "uniform"]


def make_policy(backward: str, num_bits: int, *, hidden: int = 32, num_layers: int = 3) -> Policy:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Policy(num_bits, backward=backward, hidden=hidden, num_layers=num_layers)  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ising_chain(x: Tensor) -> Tensor:
    s = 2 * x - 1
    return 0.7 * (s * s.roll(1, 1)).sum(1) + 0.3 * s[:, 0]


def reference_loss(policy: Policy, x: Tensor, order: Tensor, log_f: Tensor, weights: Tensor) -> Tensor:
    """Trajectory balance as the paper writes it, by autograd through D sequential calls; order (N, D) upwards."""
    rows, target = torch.arange(len(x)), signed(x)
    s, delta = torch.zeros_like(target), policy.log_z - log_f
    for location in order.unbind(1):
        after = s.clone()
        after[rows, location] = target[rows, location]
        delta = delta + policy.log_pf(s)[rows, x[rows, location].long(), location]
        delta = delta - policy.log_pb(after)[rows, location]
        s = after
    return (weights * delta.square()).sum()


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("backward", BACKWARD)
def test_gradient_equals_autograd_on_the_same_trajectories(backward: str, num_layers: int) -> None:
    num_bits, num_forward, num_data, r = 9, 12, 20, 0.3
    policy = make_policy(backward, num_bits, num_layers=num_layers)
    with torch.no_grad():
        policy.log_z.fill_(0.8)
    x_data = torch.randint(2, (num_data, num_bits), generator=generator(5)).float()
    result = trajectory_balance(
        policy, ising_chain, x_data, num_forward=num_forward, rng=generator(), back_ratio=r, epsilon=0.2
    )
    result.loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}

    start = torch.cat([torch.zeros(num_forward, num_bits), signed(x_data)])  # the same trajectories, by the same noise
    same = walk(policy, start, num_up=num_forward, num_steps=num_bits, rng=generator(), epsilon=0.2)
    order = torch.cat([same.order[:num_forward], same.order[num_forward:].flip(1)])
    x = torch.cat([result.x, x_data])
    weights = torch.cat([torch.full((num_forward,), (1 - r) / num_forward), torch.full((num_data,), r / num_data)])
    twin = policy.double()
    policy.zero_grad()
    reference = reference_loss(twin, x.double(), order, ising_chain(x.double()), weights.double())
    reference.backward()
    assert result.loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert len(ours) == len(list(policy.parameters()))
    for name, p in twin.named_parameters():
        assert p.grad is not None
        assert float((ours[name] - p.grad).abs().max() / p.grad.abs().max()) < 1e-5, name


@pytest.mark.parametrize("backward", BACKWARD)
def test_gradients_accumulate_and_weights_of_one_sided_batches(backward: str) -> None:
    policy = make_policy(backward, 4)
    x_data = all_vectors(4)
    for kwargs in ({"x_data": None, "num_forward": 16}, {"x_data": x_data, "num_forward": 0}):
        result = trajectory_balance(policy, ising_chain, rng=generator(), back_ratio=0.25, **kwargs)  # type: ignore[arg-type]
        assert result.loss.item() == pytest.approx(float(result.residual.square().mean()))
        policy.zero_grad()
        result.loss.backward()
        once = policy.mlp.layers[1].weight.grad.clone()
        trajectory_balance(policy, ising_chain, rng=generator(), back_ratio=0.25, **kwargs).loss.backward()  # type: ignore[arg-type]
        torch.testing.assert_close(policy.mlp.layers[1].weight.grad, 2 * once)
    with pytest.raises(ValueError, match="needs forward trajectories or data"):
        trajectory_balance(policy, ising_chain, None, num_forward=0, rng=generator())


@pytest.mark.parametrize("backward", BACKWARD)
def test_stale_parameters_are_noticed(backward: str) -> None:
    policy = make_policy(backward, 4)
    result = trajectory_balance(policy, ising_chain, None, num_forward=8, rng=generator())
    with torch.no_grad():
        policy.mlp.layers[1].weight.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.loss.backward()


@pytest.mark.parametrize("backward", BACKWARD)
def test_a_diverged_network_gives_a_nan_loss_and_no_crash(backward: str) -> None:
    policy = make_policy(backward, 4)
    with torch.no_grad():
        policy.mlp.layers[1].weight.fill_(float("nan"))
    assert trajectory_balance(policy, ising_chain, all_vectors(4), num_forward=8, rng=generator()).loss.isnan()


def solve_exactly(policy: Policy, log_f: Tensor) -> float:
    """Sets the last layer so that the policy satisfies trajectory balance for f exactly; returns log Z.

    With P_B given (the one the network has, or the uniform one) the flows F(s) = sum_{s'} F(s') P_B(s | s') follow
    from F(x) = f(x), and P_F(s' | s) = F(s') P_B(s | s') / F(s). A wide random network has linearly independent hidden
    features on the 3^D states, so that any logits can be had.
    """
    num_bits = policy.num_bits
    states = all_states(num_bits).double()
    place = 3 ** torch.arange(num_bits)
    flow = torch.zeros(len(states), dtype=torch.float64)
    flow[((all_vectors(num_bits).long() + 1) * place).sum(1)] = log_f.double().exp()
    p_b = policy.log_pb(states).exp()
    edge = torch.zeros(len(states), 2, num_bits, dtype=torch.float64)  # F(s') P_B(s | s') of the edge (v, d) from s
    for level in range(num_bits - 1, -1, -1):
        for i in ((states != 0).sum(1) == level).nonzero()[:, 0].tolist():
            for d, v in itertools.product(range(num_bits), range(2)):
                if states[i, d] == 0:
                    child = i + (v + 1) * int(place[d])
                    edge[i, v, d] = flow[child] * p_b[child, d]
            flow[i] = edge[i].sum()
    legal = (states == 0)[:, None].expand_as(edge)
    logits = torch.where(legal, edge.clamp_min(1e-300).log(), 0.0)
    hidden = states
    for layer in policy.mlp.layers[:-1]:
        hidden = torch.nn.functional.leaky_relu(layer(hidden), 0.01)
    last = policy.mlp.layers[-1]
    features = torch.cat([hidden, torch.ones(len(states), 1, dtype=torch.float64)], 1)
    if policy.backward == "learned":
        wanted = torch.cat([logits.flatten(1), last(hidden)[:, 2 * num_bits :]], 1)
    else:
        wanted = logits[:, 1] - logits[:, 0]
    solution = torch.linalg.lstsq(features, wanted, driver="gelsd").solution
    last.weight.copy_(solution[:-1].t())
    last.bias.copy_(solution[-1])
    policy.log_z.copy_(flow[0].log())
    return float(flow[0].log())


@pytest.mark.parametrize("backward", BACKWARD)
def test_loss_is_zero_for_every_trajectory_at_the_optimum(backward: str) -> None:
    policy = make_policy(backward, 4, hidden=200, num_layers=2).double()
    x = all_vectors(4).double()
    log_f = torch.randn(16, generator=generator(3)).double() * 1.5
    index = 2.0 ** torch.arange(4, dtype=torch.float64)
    with torch.no_grad():
        log_z = solve_exactly(policy, log_f)
    assert log_z == pytest.approx(float(log_f.logsumexp(0)), abs=1e-9)
    torch.testing.assert_close(terminal_log_prob(policy), log_f - log_z, rtol=0, atol=1e-6)
    result = trajectory_balance(
        policy, lambda x: log_f[(x @ index).long()], x.repeat(24, 1), num_forward=400, rng=generator(), epsilon=0.5
    )
    assert float(result.residual.abs().max()) < 1e-6
    result.loss.backward()
    assert all(float(p.grad.abs().max()) < 1e-4 for p in policy.parameters())
    with torch.no_grad():
        policy.log_z += 0.1  # and it notices a wrong log Z
    moved = trajectory_balance(policy, lambda x: log_f[(x @ index).long()], x, num_forward=16, rng=generator())
    assert moved.loss.item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("backward", BACKWARD)
def test_short_training_learns_log_z_and_the_target(backward: str) -> None:
    policy = make_policy(backward, 5, hidden=64, num_layers=2)
    x = all_vectors(5)
    log_f = ising_chain(x).double()
    before = 0.5 * float((terminal_log_prob(policy).exp() - log_f.softmax(0)).abs().sum())
    optimizer = torch.optim.Adam(
        [{"params": policy.mlp.parameters(), "lr": 5e-3}, {"params": [policy.log_z], "lr": 0.1}]
    )
    rng = generator()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        optimizer.zero_grad()
        trajectory_balance(policy, ising_chain, x, num_forward=64, rng=rng, back_ratio=0.5).loss.backward()
        optimizer.step()
        schedule.step()
    after = 0.5 * float((terminal_log_prob(policy).exp() - log_f.softmax(0)).abs().sum())
    assert before > 0.3 and after < 0.03
    assert policy.log_z.item() == pytest.approx(float(log_f.logsumexp(0)), abs=0.05)
