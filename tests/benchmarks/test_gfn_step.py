"""A trajectory balance step of the GFlowNet beside autograd through D sequential calls (select with -m benchmark).

Compare the two sides of one group within one process, on one thread (OMP_NUM_THREADS=1).
The naive side shares the lean head of the uniform policy, D outputs; published code computes 3D, which costs it another
fifth at D = 100.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gmbench.baselines.energy.ebm_gfn.loss import trajectory_balance
from gmbench.baselines.energy.ebm_gfn.policy import Policy, signed

SIZES = [(32, 128, 256), (100, 64, 256), (100, 256, 256), (100, 256, 128)]  # D, batch, hidden


def naive_step(policy: Policy, x_data: Tensor, rng: torch.Generator) -> Tensor:
    """Half the forward and half the data-backward loss, the graph kept through every call of the network."""
    batch, num_bits = x_data.shape
    rows = torch.arange(batch)
    loss = torch.zeros(())
    for forward in (True, False):
        s = torch.zeros(batch, num_bits) if forward else signed(x_data)
        delta = policy.log_z.expand(batch)
        outputs = policy.mlp(s)
        for _ in range(num_bits):
            if policy.backward == "uniform":
                location = torch.multinomial(((s == 0) if forward else (s != 0)).float(), 1, generator=rng)[:, 0]
                before = s
                if not forward:
                    before = s.scatter(1, location[:, None], 0.0)
                log_odds = policy.mlp(before)[rows, location]
                if forward:
                    value = 2 * torch.bernoulli(log_odds.sigmoid(), generator=rng) - 1
                    s = s.scatter(1, location[:, None], value[:, None].detach())
                else:
                    value, s = s[rows, location], before
                delta = delta + F.logsigmoid(value * log_odds)
                continue
            unset = s == 0
            if forward:
                log_pf = outputs[:, : 2 * num_bits].masked_fill(torch.cat([~unset, ~unset], 1), -1e9).log_softmax(1)
                action = torch.multinomial(log_pf.exp(), 1, generator=rng)
                location, value = action % num_bits, 2.0 * (action // num_bits) - 1
                s = s.scatter(1, location, value)
                outputs = policy.mlp(s)
                log_pb = outputs[:, 2 * num_bits :].masked_fill(s == 0, -1e9).log_softmax(1)
            else:
                log_pb = outputs[:, 2 * num_bits :].masked_fill(unset, -1e9).log_softmax(1)
                location = torch.multinomial(log_pb.exp(), 1, generator=rng)
                action = location + num_bits * (s.gather(1, location) > 0)
                s = s.scatter(1, location, 0.0)
                outputs = policy.mlp(s)
                is_set = s != 0
                log_pf = outputs[:, : 2 * num_bits].masked_fill(torch.cat([is_set, is_set], 1), -1e9).log_softmax(1)
            delta = delta + (log_pf.gather(1, action) - log_pb.gather(1, location))[:, 0]
        loss = loss + 0.5 * delta.square().mean()
    return loss


def our_step(policy: Policy, x_data: Tensor, rng: torch.Generator) -> Tensor:
    """The same loss by the code of the baseline; f = 1 on both sides."""
    return trajectory_balance(policy, lambda x: torch.zeros(len(x)), x_data, num_forward=len(x_data), rng=rng).loss


@pytest.mark.benchmark
@pytest.mark.parametrize("step", [naive_step, our_step])
@pytest.mark.parametrize(("num_bits", "batch", "hidden"), SIZES)
@pytest.mark.parametrize("backward", ["learned", "uniform"])
def test_trajectory_balance_step(
    benchmark: Callable[..., None], step: Callable[..., Tensor], backward: str, num_bits: int, batch: int, hidden: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = Policy(num_bits, backward=backward, hidden=hidden, num_layers=3)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(0)
    x_data = torch.randint(2, (batch, num_bits), generator=rng).float()

    def run() -> None:
        policy.zero_grad()
        step(policy, x_data, rng).backward()

    benchmark.group = f"{backward} D={num_bits} B={batch} hidden={hidden}"  # type: ignore[attr-defined]
    benchmark.extra_info.update(num_bits=num_bits, batch=batch, hidden=hidden, num_layers=3)  # type: ignore[attr-defined]
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)  # type: ignore[attr-defined]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())
