"""The hidden Markov model: enumeration of all paths, EM written out, its ascent, a source of known entropy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from building import card_of, from_card, rng
from gmbench.baselines.latent.hmm.chain import Chain, Penalty, em_step, forward, smooth
from gmbench.baselines.latent.hmm.model import HMM
from gmbench.baselines.latent.hmm.packing import pack
from gmbench.errors import MissingCapability
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenSequence
from gmbench.training import Interrupted, Trainer

PAD, EOS = 0, 1


def build(space: TokenSequence, **changes: Any) -> HMM:
    return from_card(HMM, space, "pcfg", **changes)


def random_chain(num_states: int, vocab_size: int, *, ends: bool = True, seed: int = 0) -> Chain:
    generator = rng(seed)

    def rows(num: int, width: int, barred: list[int]) -> Tensor:
        p = torch.rand(num, width, generator=generator, dtype=torch.float64) ** 2 + 0.01
        p[:, barred] = 0
        return p / p.sum(1, keepdim=True)

    moves = [] if ends else [num_states]
    return Chain(
        rows(1, num_states + 1, moves)[0],
        rows(num_states, num_states + 1, moves),
        rows(num_states, vocab_size, [PAD, EOS] if ends else [PAD]),
    )


def with_chain(chain: Chain, space: TokenSequence) -> HMM:
    model = build(space, num_states=chain.num_states)
    model.tables.set(chain)
    model.best.network.load_state_dict(model.tables.state_dict())
    return model


def joint(chain: Chain, row: list[int], path: tuple[int, ...], *, ends: bool = True) -> float:
    """p(x, z), factor by factor."""
    pi, A, B = chain
    if not path:
        return float(pi[-1])
    p = float(pi[path[0]])
    for t, (z, x) in enumerate(zip(path, row, strict=False)):
        p *= float(B[z, x]) * (float(A[path[t - 1], z]) if t else 1.0)
    return p * float(A[path[-1], -1]) if ends else p


def paths(chain: Chain, row: list[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(range(chain.num_states), repeat=len(row)))


def words_of(row: Tensor, *, ends: bool = True) -> list[int]:
    return [int(token) for token in row if token != PAD and not (ends and token == EOS)]


def sentences(num: int, length: int, seed: int = 0) -> Tensor:
    """Random sequences over 2, 3, 4, of 0 to length - 1 words."""
    words = torch.randint(2, 5, (num, length), generator=rng(seed))
    lengths = torch.randint(length, (num, 1), generator=rng(seed + 1))
    lengths[0], lengths[1] = 0, length - 1
    place = torch.arange(length)
    return torch.where(place < lengths, words, torch.where(place == lengths, EOS, PAD))


def data(train: Tensor, validation: Tensor, space: TokenSequence) -> Data:
    return Data(space, train, lambda num, g: train[torch.randint(len(train), (num,), generator=g)], validation)


@pytest.mark.parametrize("ends", [True, False])
def test_log_p_is_the_sum_over_all_paths(ends: bool) -> None:
    space = TokenSequence(5, 6, ends=ends)
    chain = random_chain(3, 5, ends=ends)
    x = sentences(9, 6) if ends else torch.randint(1, 5, (9, 6), generator=rng(3))
    model = with_chain(chain, space)
    expected = []
    for row in x:
        words = words_of(row, ends=ends)
        expected.append(math.log(sum(joint(chain, words, path, ends=ends) for path in paths(chain, words))))
    torch.testing.assert_close(model.log_prob(x, rng=rng()), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.token_log_prob(x).sum(1), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert not bool(model.token_log_prob(x)[x == PAD].any())


@pytest.mark.parametrize("ends", [True, False])
def test_next_tokens_sum_to_one(ends: bool) -> None:
    space = TokenSequence(6, 5, ends=ends)
    model = with_chain(random_chain(4, 6, ends=ends), space)
    for position in range(4):
        x = torch.full((5, 5), 3)
        x[:, 0], x[:, position] = 2, torch.arange(1, 6)
        if ends:
            x[:, position + 1 :] = PAD
            x[1:, position + 1] = EOS
        assert float(model.token_log_prob(x)[:, position].double().exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ends", [True, False])
def test_a_step_of_em_is_expected_counts_over_all_paths(ends: bool) -> None:
    chain, penalty, K = random_chain(3, 5, ends=ends, seed=4), Penalty(0.3, 0.7), 3
    x = sentences(12, 5, seed=5) if ends else torch.randint(1, 5, (12, 4), generator=rng(6))
    start, moves, tokens = torch.zeros(K + 1), torch.zeros(K, K + 1), torch.zeros(K, 5)
    total = 0.0
    for row in x:
        words = words_of(row, ends=ends)
        weights = {path: joint(chain, words, path, ends=ends) for path in paths(chain, words)}
        evidence = sum(weights.values())
        total += math.log(evidence)
        for path, weight in weights.items():
            share = weight / evidence
            start[path[0] if path else K] += share
            for z, word in zip(path, words, strict=True):
                tokens[z, word] += share
            for z, after in itertools.pairwise(path):
                moves[z, after] += share
            if path and ends:
                moves[path[-1], K] += share
    allowed = slice(0, K + 1) if ends else slice(0, K)
    expected_total = total + sum(
        pseudo * float(p[p > 0].log().sum())
        for pseudo, p in ((0.3, chain.start), (0.3, chain.transition), (0.7, chain.emission))
    )
    first = 2 if ends else 1
    new, objective = em_step(chain, pack(x, ends=ends, num_rows=5), penalty, ends=ends)
    assert objective == pytest.approx(expected_total, rel=1e-10)
    for found, counts, columns, pseudo in (
        (new.start, start, allowed, 0.3),
        (new.transition, moves, allowed, 0.3),
        (new.emission, tokens, slice(first, 5), 0.7),
    ):
        smoothed = torch.zeros_like(counts)
        smoothed[..., columns] = counts[..., columns] + pseudo
        torch.testing.assert_close(found.float(), smoothed / smoothed.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [Penalty(0.0, 1e-3), Penalty(0.5, 1.0)])
def test_em_never_lowers_the_penalised_likelihood(penalty: Penalty) -> None:
    source = with_chain(random_chain(3, 7, seed=1), TokenSequence(7, 20))
    blocks = pack(source.sample(200, rng=rng(2)), ends=True, num_rows=64)
    chain, climb = random_chain(5, 7, seed=3), []
    for _ in range(50):
        chain, objective = em_step(chain, blocks, penalty, ends=True)
        climb.append(objective)
    assert float(torch.tensor(climb, dtype=torch.float64).diff().min()) > -1e-8
    assert climb[-1] - climb[0] > 10
    for rows in chain:
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows.sum(-1)))


def test_the_posterior_is_that_of_the_paths() -> None:
    chain, x = random_chain(3, 5, seed=7), sentences(8, 5, seed=8)
    features = with_chain(chain, TokenSequence(5, 5)).encode(x)
    for row, found in zip(x, features, strict=True):
        words = words_of(row)
        occupied, evidence = torch.zeros(3, dtype=torch.float64), 0.0
        for path in paths(chain, words):
            weight = joint(chain, words, path)
            evidence += weight
            for z in path:
                occupied[z] += weight / max(len(words), 1)
        torch.testing.assert_close(found.double(), occupied / evidence, rtol=0, atol=1e-6)
    packed = pack(x, ends=True, num_rows=100)[0]
    posterior, _ = smooth(chain, packed, forward(chain, packed, ends=True), ends=True)
    torch.testing.assert_close(posterior.sum(1), torch.ones(len(posterior), dtype=torch.float64))


def test_packing_loses_and_moves_nothing() -> None:
    x = sentences(30, 7, seed=9)
    back = torch.zeros_like(x)
    for packed in pack(x, ends=True, num_rows=8):
        back[packed.rows] = packed.unpacked(packed.tokens, 7)
        assert sum(packed.sizes) == len(packed.tokens) == int(packed.lengths.sum())
    assert back.equal(torch.where(x == EOS, PAD, x))


def unifilar() -> Chain:
    """A source whose word tells its state: from a (words 2, 3) to a or b, from b (words 4, 5) back to a, or the end."""
    start = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    transition = torch.tensor([[0.1, 0.8, 0.1], [0.75, 0.0, 0.25]], dtype=torch.float64)
    emission = torch.tensor([[0, 0, 0.9, 0.1, 0, 0], [0, 0, 0, 0, 0.5, 0.5]], dtype=torch.float64)
    return Chain(start, transition, emission)


def entropy_of_words(chain: Chain) -> float:
    """H of a unifilar source in nats a sequence: choices at the start, then (I - A)^-1 of those of each state."""

    def entropy(rows: Tensor) -> Tensor:
        return torch.special.entr(rows).sum(-1)

    K = chain.num_states
    choices = entropy(chain.emission) + entropy(chain.transition)
    visits = torch.linalg.solve(torch.eye(K, dtype=torch.float64) - chain.transition[:, :K], choices)
    return float(entropy(chain.start) + chain.start[:K] @ visits)


def test_the_entropy_of_a_known_source_is_reached() -> None:
    space = TokenSequence(6, 60)
    truth, entropy = with_chain(unifilar(), space), entropy_of_words(unifilar())
    train, validation, test = (truth.sample(num, rng=rng(seed)) for seed, num in ((1, 3000), (2, 500), (3, 4000)))
    own = -truth.log_prob(test, rng=rng()).double()
    assert float(own.mean()) == pytest.approx(entropy, abs=5 * float(own.std()) / math.sqrt(len(own)))
    model = build(space, num_states=2, num_iterations=60, validate_every=20)
    Trainer(seed=1).fit(model, data(train, validation, space))
    excess = -model.log_prob(test, rng=rng()).double() - own
    assert 0 < float(excess.mean()) < 0.01  # nats a sequence, of 6.6
    one = build(space, num_states=1, num_iterations=2)
    Trainer(seed=1).fit(one, data(train, validation, space))
    assert float((-one.log_prob(test, rng=rng()).double() - own).mean()) > 1
    order = model.chain.emission[:, 2].argsort(descending=True)
    torch.testing.assert_close(model.chain.emission[order], unifilar().emission, rtol=0, atol=0.02)


def test_samples_follow_the_probabilities() -> None:
    space = TokenSequence(5, 5)
    model, num = with_chain(random_chain(2, 5, seed=11), space), 20_000
    x = model.sample(num, rng=rng(12))
    space.validate(x)
    short = x[(x == EOS).int().argmax(1) < 4]  # at the last position the end is forced
    states, counts = torch.unique(short, dim=0, return_counts=True)
    expected = model.log_prob(states, rng=rng()).double().exp() * num
    common = expected > 5
    degrees = int(common.sum())
    chi_square = float(((counts - expected).square() / expected)[common].sum())
    assert degrees > 15 and chi_square < degrees + 5 * math.sqrt(2 * degrees)


def test_samples_of_a_stream_are_full() -> None:
    space = TokenSequence(5, 8, ends=False)
    chain = random_chain(3, 5, ends=False)
    x = with_chain(chain, space).sample(5000, rng=rng())
    space.validate(x)
    first = chain.start[:3] @ chain.emission
    torch.testing.assert_close(x[:, 0].bincount(minlength=5).double() / 5000, first, rtol=0, atol=0.03)


def test_an_interrupted_fit_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    space, steps = TokenSequence(5, 6), 0
    given = data(sentences(40, 6), sentences(20, 6, seed=20), space)

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 4

    whole, broken = build(space), build(space)
    Trainer().fit(whole, given)
    with pytest.raises(Interrupted):
        Trainer(folder=tmp_path, should_stop=should_stop).fit(broken, given)
    resumed = build(space)
    Trainer(folder=tmp_path).fit(resumed, given)
    for name, tensor in whole.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
    assert not whole.tables.emission.equal(broken.tables.emission)


def test_the_best_validation_likelihood_is_kept() -> None:
    space = TokenSequence(5, 6)
    train, validation = sentences(15, 6), sentences(200, 6, seed=30)
    model = build(space, num_states=12, num_iterations=100, validate_every=1, emission_smoothing=1e-4)
    Trainer().fit(model, data(train, validation, space))
    num = int((validation != PAD).sum())
    rate = -float(model.log_prob(validation, rng=rng()).double().sum()) / num
    assert rate == pytest.approx(float(model.best.loss), rel=1e-4)
    last = with_chain(Chain(*model.tables.chain), space)
    assert -float(last.log_prob(validation, rng=rng()).double().sum()) / num > rate + 0.1  # by heart at the end


@pytest.mark.parametrize("track", ["smoke", "small", "medium", "paper"])
def test_the_card_agrees_with_the_code(track: str) -> None:
    for task in ("pcfg", "ptb", "latent_language"):
        HMM.Config(**card_of(HMM).resolve(task, track))
    assert {c for c in CAPABILITIES if offers(build(TokenSequence(5, 6)), c)} == set(card_of(HMM).capabilities)


def test_a_condition_is_declined() -> None:
    with pytest.raises(MissingCapability, match="a condition is given"):
        build(TokenSequence(5, 6)).sample(2, given=torch.tensor([0, 1]), rng=rng())
