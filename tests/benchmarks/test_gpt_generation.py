"""Generation by GPT from cached keys and values beside a full pass for every token (select with -m benchmark).

Compare the two within one process, on one thread (OMP_NUM_THREADS=1): `extra_info` has tokens a second, and `speedup`,
the time without the cache over that with it. Both draw the same sequences from the same numbers, and both are warm.
Where sequences end, EOS is likelier than it is by chance, so that rows leave at all lengths; both stop with the last.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from gmbench.baselines.autoregressive.gpt.generation import generate
from gmbench.baselines.autoregressive.gpt.network import GPTNetwork
from gmbench.baselines.autoregressive.vocabulary import Choose, by_quantiles
from gmbench.baselines.tokens import EOS, finished

EOS_LOGIT = 7.0


@torch.no_grad()
def naive(network: GPTNetwork, num: int, length: int, choose: Choose, *, ends: bool) -> Tensor:
    """The same sequences, with all features computed anew for each token of every row."""
    x, rows = torch.zeros(num, 1, dtype=torch.long), torch.arange(num)
    for t in range(length):
        x = torch.cat([x, choose(t, network.logits(network.hidden(x)[:, -1]), rows)[:, None]], 1)
        if ends and bool((x == EOS).any(1).all()):
            break
    return torch.cat([x[:, 1:], x.new_zeros(num, length + 1 - x.shape[1])], 1)


@pytest.mark.benchmark
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [64, 128])
def test_generation(benchmark: Any, length: int, ends: bool) -> None:
    num, vocab_size = 32, 46
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GPTNetwork(vocab_size, length, num_layers=2, dim=64, num_heads=4).eval()
        nn.init.normal_(network.tokens.weight, std=0.2)
    if ends:  # an output that is as large, in the direction of a typical state
        with torch.no_grad():
            state = network.hidden(torch.randint(2, vocab_size, (num, length)))[:, 1:].mean((0, 1))
            network.tokens.weight[EOS] = EOS_LOGIT * state / state.square().sum()
    prompt = torch.zeros(num, 1, dtype=torch.long)
    for _ in range(2):
        begin = time.process_time()
        expected = naive(network, num, length, by_quantiles(num, Generator().manual_seed(0)), ends=ends)
        without = time.process_time() - begin

    def cached() -> Tensor:
        choose = by_quantiles(num, Generator().manual_seed(0))
        return generate(network, prompt, length, choose, end=EOS if ends else None)

    x = benchmark.pedantic(cached, rounds=3, warmup_rounds=1)
    begin = time.process_time()
    cached()
    spent = time.process_time() - begin
    assert (finished(x) if ends else x).equal(finished(expected) if ends else expected)
    lengths = (finished(x) != 0).sum(1)
    assert int(lengths.min()) < length // 2 or not ends
    benchmark.extra_info.update(mean_length=float(lengths.double().mean()))
    benchmark.extra_info.update(tokens_per_second=int((x != 0).sum()) / spent, speedup=without / spent)
