"""The encoder–decoder transformer against torch's layers, by enumeration, without its cache, on a noisy cipher."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from building import card_of, from_card, rng
from gmbench.baselines.autoregressive.transformer import model as module
from gmbench.baselines.autoregressive.transformer.model import EncoderDecoder
from gmbench.baselines.autoregressive.transformer.network import TranslationNetwork, waves
from gmbench.baselines.autoregressive.vocabulary import by_quantiles, draw
from gmbench.baselines.tokens import finished
from gmbench.errors import MissingCapability, UserError
from gmbench.model import CAPABILITIES, Data, offers
from gmbench.spaces import TokenPair, TokenSequence
from gmbench.training import Trainer

SPACE = TokenPair(TokenSequence(8, 7), TokenSequence(9, 8))  # six words, seven, and targets may be longer
STREAM = TokenPair(TokenSequence(8, 7), TokenSequence(9, 8, ends=False))
TINY = TokenPair(TokenSequence(5, 4), TokenSequence(4, 5))
SIZES = {"num_layers": 2, "dim": 24, "num_heads": 3}
NOISE, NUM_WORDS = 0.1, 4


def build(space: TokenPair = SPACE, **changes: Any) -> EncoderDecoder:
    return from_card(EncoderDecoder, space, "seq2seq_cipher", **{**SIZES, **changes})


def sharp(space: TokenPair = SPACE) -> EncoderDecoder:
    """A model with large random weights, far from uniform, which are also those that are kept."""
    model = build(space)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.network.parameters():
            nn.init.normal_(parameter, std=0.3)
    model.best.network.load_state_dict(model.network.state_dict())
    return model


def ended(words: Tensor, length: Tensor) -> Tensor:
    """Words (B, L) cut to lengths (B, 1), EOS, and padding."""
    place = torch.arange(words.shape[1])
    return torch.where(place < length, words, torch.where(place == length, 1, 0))


def unrelated(num: int, space: TokenPair = SPACE, seed: int = 2) -> Tensor:
    """Sources and targets of all lengths; targets full of words where they have no end."""
    generator, parts = rng(seed), []
    for one in (space.source, space.target):
        words = torch.randint(2, one.vocab_size, (num, one.max_length), generator=generator)
        lengths = torch.randint(0, one.max_length, (num, 1), generator=generator)
        parts.append(ended(words, lengths if one.ends else lengths * 0 + one.max_length))
    return torch.cat(parts, 1)


class TorchsOwn:
    """The same network of torch's encoder and decoder layers, one pair at a time, without masks of padding."""

    def __init__(self, network: TranslationNetwork) -> None:
        dim, heads = SIZES["dim"], SIZES["num_heads"]
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.of_source, self.of_target = (one.tokens.weight.detach() for one in (network.source, network.target))
        encoder = [nn.TransformerEncoderLayer(dim, heads, 4 * dim, **options) for _ in network.encoder.blocks]
        decoder = [nn.TransformerDecoderLayer(dim, heads, 4 * dim, **options) for _ in network.decoder.blocks]
        for ours, theirs in zip([*network.encoder.blocks, *network.decoder.blocks], [*encoder, *decoder], strict=True):
            pairs = [(ours.attention_norm, theirs.norm1), (ours.inner, theirs.linear1), (ours.out, theirs.linear2)]
            self._attention(ours.attention.inner, ours.attention.out, theirs.self_attn)
            if isinstance(theirs, nn.TransformerDecoderLayer):
                pairs += [(ours.cross_norm, theirs.norm2), (ours.norm, theirs.norm3)]
                both = nn.Linear(dim, 3 * dim)
                for name in ("weight", "bias"):
                    of_both = [getattr(ours.cross.query, name), getattr(ours.cross.inner, name)]
                    getattr(both, name).data = torch.cat(of_both)
                self._attention(both, ours.cross.out, theirs.multihead_attn)
            else:
                pairs.append((ours.norm, theirs.norm2))
            for one, other in pairs:
                other.load_state_dict(one.state_dict())
            theirs.eval()
        self.encoder, self.decoder, self.norms = encoder, decoder, (network.encoder.norm, network.decoder.norm)
        cross = decoder[-1].multihead_attn
        cross.register_forward_pre_hook(lambda _, args, kw: (args, kw | {"need_weights": True}), with_kwargs=True)
        cross.register_forward_hook(lambda _, args, found: setattr(self, "weights", found[1]))
        self.weights = torch.empty(0)

    @staticmethod
    def _attention(inner: nn.Linear, out: nn.Linear, theirs: nn.MultiheadAttention) -> None:
        theirs.in_proj_weight.data, theirs.in_proj_bias.data = inner.weight.data, inner.bias.data
        theirs.out_proj.load_state_dict(out.state_dict())

    @staticmethod
    def _embedded(weight: Tensor, tokens: list[int]) -> Tensor:
        dim = weight.shape[1]
        places = torch.zeros(len(tokens), dim)
        for t in range(len(tokens)):
            for i in range(0, dim, 2):
                angle = t / 10000 ** (i / dim)
                places[t, i], places[t, i + 1] = math.sin(angle), math.cos(angle)
        return (weight[tokens] * dim**0.5 + places)[None]

    @torch.no_grad()
    def next_token(self, source: list[int], before: list[int]) -> tuple[Tensor, Tensor]:
        """log p (V,) of what follows the tokens `before` of a target, -inf for padding, and the weights (S,)."""
        memory = self._embedded(self.of_source, source)
        for encoding in self.encoder:
            memory = encoding(memory)
        memory, h = self.norms[0](memory), self._embedded(self.of_target, [0, *before])
        for decoding in self.decoder:
            mask = nn.Transformer.generate_square_subsequent_mask(h.shape[1])
            h = decoding(h, memory, tgt_mask=mask)
        logits = self.of_target @ self.norms[1](h)[0, -1]
        logits[0] = -torch.inf
        return logits.log_softmax(0), self.weights[0, -1]


def test_probabilities_and_weights_are_those_of_torchs_layers_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sharp(), unrelated(8)
    found, weights = model.token_log_prob(x), model.attention(x)
    assert found.shape == (8, 8) and weights.shape == (8, 8, 7)
    theirs = TorchsOwn(model.best.network)
    for row, (source, target) in enumerate(zip(*SPACE.split(x), strict=True)):
        words, tokens = source[source != 0].tolist(), target[target != 0].tolist()
        for t, token in enumerate(tokens):
            log_p, alpha = theirs.next_token(words, tokens[:t])
            assert float(found[row, t]) == pytest.approx(float(log_p[token]), abs=1e-4)
            torch.testing.assert_close(weights[row, t, : len(words)], alpha, atol=1e-4, rtol=1e-4)
        assert not found[row, len(tokens) :].any()
    assert float(found[found != 0].std()) > 0.5 and float(weights.std()) > 0.1
    torch.testing.assert_close(model.log_prob(x, rng=rng()), found.sum(1))
    monkeypatch.setattr(module, "TOKENS", 20)
    monkeypatch.setattr(module, "ROWS", 3)
    torch.testing.assert_close(model.token_log_prob(x), found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.attention(x), weights, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("space", [SPACE, STREAM])
def test_the_likelihood_is_that_of_the_networks_logits(space: TokenPair) -> None:
    model, x = sharp(space), unrelated(6, space)
    found, network = model.token_log_prob(x), model.best.network
    for row, (source, target) in enumerate(zip(*space.split(x), strict=True)):
        memory, read = network.read(source[None]), [0, *target.tolist()]
        for t in range(int((target != 0).sum())):
            log_p = network.logits(network.hidden(torch.tensor([read[: t + 1]]), memory))[0, -1].log_softmax(0)
            assert len(log_p) == 8  # padding has no probability
            assert float(found[row, t]) == pytest.approx(float(log_p[target[t] - 1]), abs=1e-4)


def test_attention_is_shared_out_among_the_sources_words_and_its_end() -> None:
    model, x = sharp(), unrelated(40)
    weights, real = model.attention(x), SPACE.split(x)[0] != 0
    torch.testing.assert_close(weights.sum(2), torch.ones(40, 8))
    assert not weights.mT[~real].any() and bool((weights.mT[real] > 0).all())
    assert len(real.sum(1).unique()) == 7


def test_padding_of_a_source_never_matters() -> None:
    model, x = sharp(), unrelated(40)
    together = (model.token_log_prob(x), model.attention(x))
    for row in range(len(x)):
        alone = x[row : row + 1]  # trimmed to its own length
        torch.testing.assert_close(model.token_log_prob(alone), together[0][row : row + 1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.attention(alone), together[1][row : row + 1], atol=1e-4, rtol=1e-4)


def test_a_target_looks_back_only_and_at_all_of_its_source() -> None:
    model, x = sharp(), torch.tensor([[2, 5, 3, 7, 4, 6, 1, 8, 2, 4, 4, 7, 3, 1, 0]])
    before = model.token_log_prob(x)
    for place in range(15):
        other = x.clone()
        other[0, place] = 2 + (x[0, place] - 1) % 6
        changed = (model.token_log_prob(other) - before).abs()[0, :7] > 1e-4
        if place < 6:
            assert bool(changed.all())
        elif 7 <= place < 13:
            assert not changed[: place - 7].any() and bool(changed[place - 7 :].all())


def every_target() -> Tensor:
    """Every target of the tiny space, ended or cut off at its length, (N, T)."""
    words = [list(itertools.product((2, 3), repeat=num)) for num in range(6)]
    ends = [[*row, 1] + [0] * (4 - num) for num in range(5) for row in words[num]]
    return torch.tensor(ends + [list(row) for row in words[5]])


@pytest.fixture(scope="module")
def enumerated() -> tuple[EncoderDecoder, Tensor, Tensor, Tensor]:
    """A model, four sources, every target (N, T), and the targets' probabilities (4, N)."""
    model, targets = sharp(TINY), every_target()
    sources = torch.tensor([[1, 0, 0, 0], [4, 1, 0, 0], [2, 3, 1, 0], [3, 4, 2, 1]])
    pairs = [torch.cat([source.expand(len(targets), -1), targets], 1) for source in sources]
    return model, sources, targets, torch.stack([model.token_log_prob(x).double().sum(1).exp() for x in pairs])


def test_probabilities_of_all_targets_of_a_source_sum_to_one(
    enumerated: tuple[EncoderDecoder, Tensor, Tensor, Tensor],
) -> None:
    _, _, targets, p = enumerated
    assert len(targets) == 63
    torch.testing.assert_close(p.sum(1), torch.ones(4, dtype=p.dtype), atol=1e-5, rtol=0)
    assert float((p[0] - p[1]).abs().sum()) > 0.02 and float((p[2] - p[3]).abs().sum()) > 0.02


def test_samples_follow_the_probabilities_given_their_sources(
    enumerated: tuple[EncoderDecoder, Tensor, Tensor, Tensor],
) -> None:
    model, sources, targets, p = enumerated
    num, code = 3000, 4 ** torch.arange(5)
    keys, place = torch.unique(finished(targets) @ code, return_inverse=True)  # what is cut gets its end there
    drawn = model.sample(4 * num, given=sources.repeat_interleave(num, 0), rng=rng(6))
    TINY.target.validate(drawn)
    for source in range(4):
        counts = torch.searchsorted(keys, drawn.view(4, num, 5)[source] @ code).bincount(minlength=len(keys))
        expected = num * torch.zeros(len(keys), dtype=p.dtype).index_add_(0, place, p[source])
        common = expected > 5
        chi_square = float(((counts - expected).square() / expected)[common].sum())
        degrees = int(common.sum())
        assert degrees > 3 and chi_square < degrees + 6 * math.sqrt(2 * degrees)
    again = model.sample(4, given=sources, rng=rng(1))
    assert again.equal(model.sample(4, given=sources, rng=rng(1)))


@torch.no_grad()
@pytest.mark.parametrize("space", [SPACE, STREAM])
def test_generation_with_and_without_the_cache_draws_the_same(space: TokenPair) -> None:
    network, num = sharp(space).network.eval(), 40
    source, end = space.split(unrelated(num, space))[0], 1 if space.target.ends else None
    found = network.generate(source, 8, by_quantiles(num, rng(5)), end=end)
    noise = rng(5)
    u = torch.stack([torch.rand(num, generator=noise) for _ in range(8)])
    expected = torch.zeros_like(found)
    for row in range(num):  # every target anew from its start, beside no other
        memory, x = network.read(source[row : row + 1]), torch.zeros(1, 1, dtype=torch.long)
        for t in range(8):
            token = draw(network.logits(network.hidden(x, memory)[:, -1]), u[t, row : row + 1])
            expected[row, t] = token[0]
            x = torch.cat([x, token[:, None]], 1)
            if end is not None and int(token[0]) == end:
                break
    assert found.equal(expected)
    assert end is None or len(found.ne(0).sum(1).unique()) > 4


def test_samples_are_cut_at_their_ends_and_belong_to_given_sources() -> None:
    sources = SPACE.split(unrelated(5))[0]
    for space in (SPACE, STREAM):
        drawn = sharp(space).sample(5, given=sources, rng=rng())
        assert space.target.validate(drawn) is None and drawn.shape == (5, 8)
    with pytest.raises(MissingCapability, match="needs the sources"):
        build().sample(4, rng=rng())
    with pytest.raises(ValueError, match="3 targets of 5 sources"):
        build().sample(3, given=sources, rng=rng())


def test_heads_that_do_not_divide_the_features_are_one_line() -> None:
    with pytest.raises(UserError, match=r"^num_heads=5 does not divide dim=24$"):
        build(num_heads=5)


def test_waves_have_wavelengths_from_two_pi_on_also_of_odd_many_features() -> None:
    found = waves(50, 7)
    assert found.shape == (50, 7)
    for t, i in itertools.product((0, 1, 13, 49), range(7)):
        angle = t / 10000 ** (2 * (i // 2) / 7)
        assert float(found[t, i]) == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


def cipher(num: int, generator: Generator) -> Tensor:
    """Sources of 1 or 2 of four words, and each word's cipher, or, one time in ten, any of the three others."""
    lengths = torch.randint(1, 3, (num, 1), generator=generator)
    words = torch.randint(0, NUM_WORDS, (num, 8), generator=generator)
    wrong = torch.rand(num, 8, generator=generator) < NOISE
    offset = torch.randint(1, NUM_WORDS, (num, 8), generator=generator)
    targets = (3 * words + 2 + wrong * offset) % NUM_WORDS
    return torch.cat([ended(words[:, :7] + 2, lengths), ended(targets + 3, lengths)], 1)


def test_a_noisy_cipher_is_learned_to_near_its_entropy() -> None:
    changes = {"dim": 32, "num_heads": 4, "dropout": 0.0, "learning_rate": 5e-3}
    model = build(**changes, num_steps=350, batch_tokens=140, validate_every=175)
    data = Data(SPACE, None, cipher, cipher(400, rng(100)))
    Trainer(seed=0).fit(model, data)
    x = cipher(2000, rng(200))
    source, target = SPACE.split(x)
    words, plain = target > 1, 3 + (3 * (nn.functional.pad(source, (0, 1)) - 2) + 2) % NUM_WORDS
    truth = torch.where(target == plain, -math.log(1 - NOISE), math.log((NUM_WORDS - 1) / NOISE))[words]
    nats = -model.token_log_prob(x)
    excess = float((nats.double().sum() - truth.double().sum()) / words.sum())
    assert -0.01 < excess < 0.08 and float(truth.mean()) > 0.4  # unaware, a word costs log 4 = 1.39, .95 too many
    assert float(nats[target == 1].max()) < 0.2  # it is sure of the end of a target
    drawn = model.sample(2000, given=source, rng=rng(3))
    assert float(((drawn > 1) == words).all(1).double().mean()) > 0.98
    assert float((drawn == plain)[words].double().mean()) == pytest.approx(1 - NOISE, abs=0.06)
    # the weights that were kept are the best on validation data
    nll, num = -model.token_log_prob(data.validation).double().sum(), (data.validation[:, 7:] != 0).sum()
    assert float(model.best.loss) == pytest.approx(float(nll / num), abs=1e-6)


@pytest.mark.parametrize("task", ["seq2seq_cipher", "another"])
def test_the_card_agrees_with_the_config_and_the_model(task: str) -> None:
    for track in ("smoke", "small", "medium", "paper"):
        EncoderDecoder(EncoderDecoder.Config(**card_of(EncoderDecoder).resolve(task, track) | SIZES), SPACE)
    assert {name for name in CAPABILITIES if offers(build(), name)} == set(card_of(EncoderDecoder).capabilities)


@torch.no_grad()
def test_no_more_is_read_than_there_are_positions() -> None:
    network = build(TINY).network.eval()
    x = torch.ones(2, TINY.target.max_length, dtype=torch.long)
    memory, past = network.read(x[:, : TINY.source.max_length]), network.decoder.cache(2, TINY.target.max_length + 1)
    network.hidden(x, memory, past=past)
    with pytest.raises(ValueError, match="1 tokens behind 5, and there are 5 positions"):
        network.hidden(x[:, :1], memory, past=past)
