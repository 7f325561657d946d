"""D3PM against transition matrices written out: marginals, posteriors, terms of the bound, the reverse chain."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from building import card_of, from_card, rng
from gmbench.baselines.diffusion.d3pm.model import D3PM
from gmbench.baselines.diffusion.d3pm.processes import Absorbing, Process, Uniform
from gmbench.errors import UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.samplers.transition_matrix import all_states, state_index
from gmbench.spaces import BinaryVector
from gmbench.training import Trainer

VALUES = {"absorbing": torch.tensor([-1.0, 1.0, 0.0]), "uniform": torch.tensor([-1.0, 1.0])}
PROCESSES = {"absorbing": Absorbing, "uniform": Uniform}
transitions = pytest.mark.parametrize("transition", ["absorbing", "uniform"])


def build(dim: int, **changes: Any) -> D3PM:
    return from_card(D3PM, BinaryVector(dim), "dynamic_mnist", **changes)


def matrices(transition: str, T: int) -> Tensor:
    """Q_t[a, b] = q(x_t = b | x_{t-1} = a) for t = 1 .. T, as the paper defines them, (T, K, K)."""
    if transition == "absorbing":
        betas = [1 / (T - t + 1) for t in range(1, T + 1)]
        to_mask = torch.tensor([[0.0, 0.0, 1.0]] * 3, dtype=torch.float64)
        return torch.stack([(1 - b) * torch.eye(3, dtype=torch.float64) + b * to_mask for b in betas])
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    betas = [1 - f[t] / f[t - 1] for t in range(1, T + 1)]
    anew = torch.full((2, 2), 0.5, dtype=torch.float64)
    return torch.stack([(1 - b) * torch.eye(2, dtype=torch.float64) + b * anew for b in betas])


def cumulative(Q: Tensor) -> list[Tensor]:
    """q(x_t | x_0) for t = 0 .. T, as products of matrices."""
    return list(itertools.accumulate(Q, lambda a, b: a @ b, initial=torch.eye(Q.shape[1], dtype=Q.dtype)))


def reverse(Q: Tensor, t: int, one: Tensor) -> Tensor:
    """Equation (4): p(x_{t-1} = b | x_t = a), (..., a, b), where the network says P(x_0 = 1) = one (...,)."""
    K = Q.shape[1]
    start = torch.zeros(*one.shape, K, dtype=Q.dtype)
    start[..., 0], start[..., 1] = 1 - one, one
    joint = Q[t - 1].T * (start @ cumulative(Q)[t - 1])[..., None, :]  # (..., a, b)
    return joint / joint.sum(-1, keepdim=True)


def posterior(Q: Tensor, t: int) -> Tensor:
    """q(x_{t-1} = b | x_t = a, x_0 = c) (c, a, b) by Bayes' rule; NaN where x_0 = c never leads to x_t = a."""
    before = cumulative(Q)[t - 1]
    joint = before[:2, None, :] * Q[t - 1].T[None]
    return joint / joint.sum(-1, keepdim=True)


@transitions
def test_marginals_are_products_of_transition_matrices(transition: str) -> None:
    T, num = 6, 20_000
    process, values = PROCESSES[transition](T), VALUES[transition]
    for t in (1, 3, T):
        for start in (0, 1):
            s = process.corrupt(values[start].expand(num, 1), torch.full((num,), t), rng(t))
            share = (s == values).double().mean(0)  # (K,)
            expected = cumulative(matrices(transition, T))[t][start]
            error = (expected * (1 - expected) / num).sqrt()
            assert bool(((share - expected).abs() <= 5 * error + 1e-12).all())


@transitions
@pytest.mark.parametrize("t", [1, 2, 5])
def test_a_term_is_the_divergence_from_the_posterior(transition: str, t: int) -> None:
    T = 5
    Q, process, values = matrices(transition, T), PROCESSES[transition](T), VALUES[transition].double()
    q_all = posterior(Q, t)
    for logit in (-3.0, 0.4, 2.0):
        p_all = reverse(Q, t, torch.sigmoid(torch.tensor(logit, dtype=torch.float64)))
        for c, a in itertools.product((0, 1), range(len(values))):
            if cumulative(Q)[t][c, a] < 1e-12:
                continue  # the corruption never gets there
            q, p = q_all[c, a], p_all[a]
            expected = torch.where(q > 0, q * (q / p).log(), 0.0).sum()
            start, s = values[c].reshape(1, 1), values[a].reshape(1, 1)
            found = process.terms(torch.full((1, 1), logit, dtype=torch.float64), s, start, torch.tensor([t]))
            assert float(found) == pytest.approx(float(expected), abs=1e-9)


@transitions
def test_a_reverse_step_draws_from_equation_4(transition: str) -> None:
    T, num, values = 5, 20_000, VALUES[transition]
    Q, process = matrices(transition, T), PROCESSES[transition](T)
    logits = torch.full((num, 1), 0.7)
    for t, a in itertools.product((1, 3, 5), range(len(values))):
        if transition == "absorbing" and t == T and a < 2:
            continue  # at T every bit is masked
        share = (process.back(logits, values[a].expand(num, 1), t, rng(a)) == values).double().mean(0)
        expected = reverse(Q, t, torch.sigmoid(torch.tensor(0.7, dtype=torch.float64)))[a]
        assert bool(((share - expected).abs() <= 5 * (expected * (1 - expected) / num).sqrt() + 1e-12).all())


def grid(transition: str, dim: int) -> Tensor:
    """All states of `dim` bits, the unknown ones among them, as spins (K^dim, dim)."""
    return torch.tensor(list(itertools.product(VALUES[transition].tolist(), repeat=dim)))


def random_model(transition: str, dim: int, T: int, num_terms: int) -> D3PM:
    """A chain far from the data's and from uniform."""
    model = build(dim, transition=transition, num_diffusion_steps=T, num_terms=num_terms).eval()
    for index, parameter in enumerate(model.best.parameters()):
        parameter.copy_((0.5 if parameter.ndim > 1 else 0.3) * torch.randn(parameter.shape, generator=rng(index)))
    return model


def logits_of(model: D3PM, states: Tensor, t: int) -> Tensor:
    fraction = torch.tensor([t / model.config.num_diffusion_steps])
    with torch.no_grad():
        logits: Tensor = model.best(model.process.inputs(states), fraction)
    return logits


def exact_log_p(model: D3PM, transition: str, dim: int) -> Tensor:
    """log p(x_0) of all 2^dim points under the reverse chain, pushed through all states of every time."""
    T, values, states = model.config.num_diffusion_steps, VALUES[transition], grid(transition, dim)
    Q = matrices(transition, T)
    index = (states[:, :, None] == values).double().argmax(-1)  # (S, dim)
    if transition == "absorbing":
        p = (states == 0).all(1).double()
    else:
        p = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    for t in range(T, 0, -1):
        one = logits_of(model, states, t).double().sigmoid()
        single = reverse(Q, t, one)  # (S, dim, a, b)
        single = single.gather(2, index[:, :, None, None].expand(-1, -1, 1, len(values)))[:, :, 0]  # (S, dim, b)
        # a state that carries no mass may have no law: 0 / 0
        single = single.nan_to_num()
        kernel = torch.ones(len(states), len(states), dtype=torch.float64)
        for d in range(dim):
            kernel = kernel * single[:, d][:, index[:, d]]
        p = p @ kernel
    known = (states != 0).all(1)
    return p[known].log()  # in the order of all_states: -1 comes before +1


def exact_bound(model: D3PM, transition: str, dim: int) -> Tensor:
    """The bound (2^dim,), its expectation over every x_t taken exactly."""
    T, values, states = model.config.num_diffusion_steps, VALUES[transition], grid(transition, dim)
    marginals = cumulative(matrices(transition, T))
    index = (states[:, :, None] == values).double().argmax(-1)
    total = torch.zeros(2**dim, dtype=torch.float64)
    for t in range(1, T + 1):
        logits = logits_of(model, states, t).double()
        for position, x in enumerate(all_states(dim)):
            weight = marginals[t][x.long()].gather(1, index.T).prod(0)  # q(x_t | x_0) of every state, (S,)
            start = (2 * x - 1).expand_as(states)
            times = torch.full((len(states),), t)
            total[position] -= (weight * model.process.terms(logits, states.double(), start, times)).sum()
    return total


@transitions
@pytest.mark.parametrize("T", [1, 4])
def test_the_bound_is_below_the_exact_log_likelihood_and_estimated_without_bias(transition: str, T: int) -> None:
    dim = 4
    model = random_model(transition, dim, T, num_terms=min(T, 3))
    log_p, bound = exact_log_p(model, transition, dim), exact_bound(model, transition, dim)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-6)
    assert float(log_p.std()) > 0.1
    slack = log_p - bound
    if T == 1:  # nothing is hidden: p(x_0 | x_1) from an x_1 that knows nothing
        assert float(slack.min()) > -1e-5
        assert transition == "uniform" or float(slack.max()) < 1e-5
    else:
        assert float(slack.min()) > 0 and float(slack.mean()) > 1e-3
    num = 2000
    drawn = model.log_prob(all_states(dim).float().repeat(num, 1), rng=rng(1)).double().reshape(num, -1)
    error = drawn.std(0) / num**0.5
    assert bool(((drawn.mean(0) - bound).abs() < 5 * error + 1e-4).all())


@transitions
def test_samples_follow_the_exact_reverse_chain(transition: str) -> None:
    dim, num = 4, 20_000
    model = random_model(transition, dim, 3, 3)
    x = model.sample(num, rng=rng(5))
    model.space.validate(x)
    expected = exact_log_p(model, transition, dim).exp() * num
    counts = torch.bincount(state_index(x), minlength=16)
    assert float(((counts - expected).square() / expected).sum()) < 15 + 5 * math.sqrt(30)


def test_runs_of_times_of_unequal_length_are_weighted() -> None:
    """num_terms = 3 of T = 7 steps against all 7 of them, the same model."""
    few, all_terms = (random_model("absorbing", 5, 7, num) for num in (3, 7))
    x = all_states(5).float().repeat(300, 1)
    a, b = (model.log_prob(x, rng=rng(2)).double() for model in (few, all_terms))
    error = float((a.var() / len(a) + b.var() / len(b)).sqrt())
    assert abs(float(a.mean() - b.mean())) < 4 * error
    assert float(b.reshape(300, -1).std(0).mean()) < float(a.reshape(300, -1).std(0).mean())
    assert few.likelihood.key == "elbo3" and few.likelihood.kind == "lower_bound"
    with pytest.raises(UserError, match="at most"):
        build(4, num_diffusion_steps=4, num_terms=5)


def known_data() -> tuple[Data, Tensor]:
    p = torch.softmax(2 * torch.randn(16, generator=rng(11), dtype=torch.float64), 0)
    states = all_states(4).float()

    def draw(num: int, generator: Generator) -> Tensor:
        return states[torch.multinomial(p, num, replacement=True, generator=generator)]

    return Data(BinaryVector(4, (2, 2)), None, draw, draw(500, rng(13))), p


@transitions
def test_training_finds_a_known_distribution(transition: str) -> None:
    data, p = known_data()
    changes = {"num_diffusion_steps": 12, "num_terms": 12, "num_steps": 200, "batch_size": 128, "validate_every": 100}
    model = build(4, transition=transition, learning_rate=0.005, **changes)
    Trainer(seed=0).fit(model, data)
    entropy = -float((p * p.log()).sum())
    gap = -float((p * exact_bound(model, transition, 4)).sum()) - entropy
    independent = all_states(4)
    mean = (p @ independent)[None]
    log_independent = (independent * mean.log() + (1 - independent) * (1 - mean).log()).sum(1)
    assert 0 < gap < 0.25 < 0.4 < -float((p * log_independent).sum()) - entropy
    assert float(model.best_bound) == pytest.approx(-entropy - gap, abs=0.15)


def test_the_processes_share_an_interface() -> None:
    assert all(issubclass(process, Process) for process in PROCESSES.values())
    uniform = Uniform(9)
    assert float(uniform.memory[0]) == 1 and float(uniform.memory[-1]) == 0
    assert bool((uniform.memory.diff() < 0).all())


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
@pytest.mark.parametrize("preset", ["", "uniform"])
def test_the_card_agrees_with_the_code(track: str, preset: str) -> None:
    for task in ("dynamic_mnist", "synthetic2d", "ising"):
        config = D3PM.Config(**card_of(D3PM).resolve(task, track, preset))
        assert config.transition == (preset or "absorbing")
    assert {c for c in CAPABILITIES if offers(build(4), c)} == set(card_of(D3PM).capabilities)
