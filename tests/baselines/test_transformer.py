"""The shared transformer against torch's own layers, its cache against full passes, and its memory by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from building import rng
from gmbench.baselines.transformer import INITIAL_STD, Block, Transformer

DIM, HEADS = 24, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed))


def transformer(num_layers: int = 2, *, causal: bool = True, crossing: bool = False) -> Transformer:
    """One with large random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Transformer(num_layers, DIM, HEADS, causal=causal, crossing=crossing)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


def copy_attention(ours: nn.Module, theirs: nn.MultiheadAttention) -> None:
    if hasattr(ours, "query"):
        weight, bias = (torch.cat([getattr(ours.query, n), getattr(ours.inner, n)]) for n in ("weight", "bias"))
    else:
        weight, bias = ours.inner.weight, ours.inner.bias
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = weight.data, bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data


def copy(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_torchs_encoder_layer(causal: bool) -> None:
    block: Block = transformer(1, causal=causal).blocks[0]  # type: ignore[assignment]
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    copy_attention(block.attention, theirs.self_attn)
    for one, other in ((block.attention_norm, theirs.norm1), (block.norm, theirs.norm2)):
        copy(one, other)
    copy(block.inner, theirs.linear1)
    copy(block.out, theirs.linear2)
    x, visible = normal(3, 7, DIM), torch.arange(7) < torch.tensor([[7], [4], [1]])
    if causal:
        expected, found = theirs(x, nn.Transformer.generate_square_subsequent_mask(7), is_causal=True), block(x)
    else:
        expected, found = theirs(x, src_key_padding_mask=~visible), block(x, visible=visible)
    torch.testing.assert_close(found[visible], expected[visible])
    assert found.std() > 0.5


@torch.no_grad()
def test_a_block_with_a_source_is_torchs_decoder_layer() -> None:
    model = transformer(1, crossing=True)
    block: Block = model.blocks[0]  # type: ignore[assignment]
    assert block.cross is not None and block.cross_norm is not None
    theirs = nn.TransformerDecoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    copy_attention(block.attention, theirs.self_attn)
    copy_attention(block.cross, theirs.multihead_attn)
    norms = (block.attention_norm, block.cross_norm, block.norm)
    for one, other in zip(norms, (theirs.norm1, theirs.norm2, theirs.norm3), strict=True):
        copy(one, other)
    copy(block.inner, theirs.linear1)
    copy(block.out, theirs.linear2)
    x, source, visible = normal(3, 7, DIM), normal(3, 5, DIM, seed=1), torch.arange(5) < torch.tensor([[5], [3], [1]])
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    expected = model.norm(theirs(x, source, mask, memory_key_padding_mask=~visible, tgt_is_causal=True))
    torch.testing.assert_close(model(x, source=model.sources(source), source_visible=visible), expected)
    # how it attends, against what it does with values that say where they come from
    keys = block.cross.keys_values(source)[0]
    weights = block.cross.weights(x, (keys, keys), visible)
    places = torch.eye(5, DIM // HEADS).expand(3, HEADS, 5, DIM // HEADS)
    block.cross.out.weight.copy_(torch.eye(DIM))
    block.cross.out.bias.zero_()
    found = block.cross(x, (keys, places), visible).unflatten(2, (HEADS, -1)).transpose(1, 2)[..., :5]
    torch.testing.assert_close(found, weights)
    torch.testing.assert_close(weights.sum(3), torch.ones(3, HEADS, 7))
    assert not weights[1, :, :, 3:].any()


@torch.no_grad()
@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 1, 3, 1), (9,)])
def test_what_was_cached_is_what_a_full_pass_computes(with_memory: bool, pieces: tuple[int, ...]) -> None:
    model = transformer()
    x = normal(4, 9, DIM)
    memory = normal(2, 4, 3, 2, HEADS, DIM // HEADS, seed=1) if with_memory else None
    expected = model(x, memory=memory)
    past = model.cache(4, 9, memory)
    found = torch.cat([model(piece, past=past) for piece in x.split(pieces, 1)], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if with_memory:
        assert (model(x) - expected).abs().mean() > 0.05


@torch.no_grad()
def test_rows_that_are_kept_go_on_as_they_were() -> None:
    model, x, kept = transformer(), normal(5, 8, DIM), torch.tensor([3, 0, 4])
    memory = normal(2, 5, 1, 2, HEADS, DIM // HEADS, seed=1)
    past = model.cache(5, 8, memory)
    model(x[:, :5], past=past)
    past.keep(kept)
    first = model(x[kept, 5:7], past=past)
    past.keep(torch.tensor([2]))
    last = model(x[4:5, 7:], past=past)
    expected = model(x, memory=memory)
    torch.testing.assert_close(first, expected[kept, 5:7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, expected[4:5, 7:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_memory_is_seen_by_every_position_as_one_more_key() -> None:
    attention = transformer(1).blocks[0].attention
    x, d = normal(2, 6, DIM), DIM // HEADS
    key, value = normal(2, HEADS, 1, d, seed=1), normal(2, HEADS, 1, d, seed=2)
    found = attention(x, extend=lambda k, v: (torch.cat([key, k], 2), torch.cat([value, v], 2)))
    q, k, v = (one.unflatten(2, (HEADS, d)).transpose(1, 2) for one in attention.inner(x).chunk(3, 2))
    for t in range(6):
        keys, values = (torch.cat([a, b[:, :, : t + 1]], 2) for a, b in ((key, k), (value, v)))
        weights = (q[:, :, t : t + 1] @ keys.transpose(2, 3) / math.sqrt(d)).softmax(3)
        expected = attention.out((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(found[:, t : t + 1], expected)


def test_gradients_reach_the_memory_and_only_what_came_before() -> None:
    model = transformer()
    x, memory = normal(1, 6, DIM).requires_grad_(), normal(2, 1, 1, 2, HEADS, DIM // HEADS, seed=1).requires_grad_()
    of_x, of_memory = torch.autograd.grad(model(x, memory=memory)[0, 3].sum(), [x, memory])
    assert of_x[0, :4].abs().sum(1).all() and not of_x[0, 4:].any()
    assert of_memory.abs().amax((3, 5)).all()


def test_initial_weights_are_those_of_gpt2() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Transformer(8, 64, 4, causal=True)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            expected = INITIAL_STD / (4 if name.endswith("out.weight") else 1)
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05)


def test_heads_must_divide_the_features_and_memory_belongs_into_the_cache() -> None:
    with pytest.raises(ValueError, match="divide"):
        Transformer(1, 10, 3, causal=True)
    model, memory = transformer(), normal(2, 1, 1, 2, HEADS, DIM // HEADS)
    with pytest.raises(ValueError, match="cache"):
        model(normal(1, 2, DIM), memory=memory, past=model.cache(1, 2))


@torch.no_grad()
@pytest.mark.parametrize("with_memory", [False, True])
def test_a_cache_that_is_full_takes_no_more(with_memory: bool) -> None:
    model = transformer()
    memory = normal(2, 4, 3, 2, HEADS, DIM // HEADS, seed=1) if with_memory else None
    past = model.cache(4, 5, memory)
    model(normal(4, 4, DIM), past=past)
    before = 7 if with_memory else 4
    with pytest.raises(ValueError, match=f"2 positions behind {before} in a cache of {before + 1}"):
        model(normal(4, 2, DIM), past=past)
    model(normal(4, 1, DIM), past=past)
    with pytest.raises(ValueError, match=f"1 positions behind {before + 1} in a cache of {before + 1}"):
        model(normal(4, 1, DIM), past=past)
