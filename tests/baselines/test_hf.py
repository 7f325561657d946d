"""What checkpoints of transformers score, against loops over tokens: in windows, by a prefix, given contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import (
    POSITIONS,
    SENTENCES,
    SIZES,
    SPACE,
    TOLERANCE,
    build,
    byte_pairs,
    framed,
    plain,
    refused,
    shaken,
    token_loop,
    transformers,
    whole_words,
)
from gmbench.baselines.autoregressive.hf.checkpoint import load
from gmbench.baselines.autoregressive.hf.encoding import Encoder
from gmbench.baselines.autoregressive.hf.readout import ROWS, Readout, readout, target_log_prob
from gmbench.baselines.autoregressive.hf.scoring import common_prefix, score, score_answers, windows
from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data


def test_a_text_has_the_probability_of_its_tokens_and_end(causal: Path) -> None:
    network, tokenizer = plain(causal)
    texts = ["the cat sees", "", "a dog", "the cat sees", "é 12"]
    expected = [float(token_loop(network, framed(tokenizer, text)).sum()) for text in texts]
    found = build(causal).score_text(texts)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx(expected, abs=TOLERANCE)
    assert len({round(value, 3) for value in found.tolist()}) == 4 and build(causal).score_text([]).shape == (0,)
    name, num = build(causal).count_tokens(texts)
    assert num.tolist() == [len(framed(tokenizer, text)) - 1 for text in texts] and name.isalnum()


def test_long_texts_are_scored_in_windows(causal: Path) -> None:
    network, tokenizer = plain(causal)
    texts = [*SENTENCES, "the cat sees"]
    for size, stride in ((0, 0), (POSITIONS, POSITIONS), (10, 3), (1, 1)):
        width, step = size or POSITIONS, stride or POSITIONS // 2
        ids = [framed(tokenizer, text) for text in texts]
        assert max(map(len, ids)) > POSITIONS + 1
        expected = [float(token_loop(network, one, size=width, stride=step).sum()) for one in ids]
        for tokens_per_batch in (0, 1, 40):
            model = build(causal, window=size, stride=stride, tokens_per_batch=tokens_per_batch)
            assert model.score_text(texts).tolist() == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(("size", "stride"), [(8, 8), (8, 3), (8, 1), (1, 1), (5, 4)])
def test_windows_score_every_token_once(size: int, stride: int) -> None:
    lengths = [2, max(2, size), size + 1, size + 2, size + stride + 1, size + stride + 2, 3 * size + 5]
    sequences = [list(range(100 * number, 100 * number + length)) for number, length in enumerate(lengths)]
    spans = windows([[*one] for one in sequences], size, stride)
    seen = []
    for begin, length, num, of in zip(spans.begins, spans.lengths, spans.num_scored, spans.sequence, strict=True):
        tokens = spans.ids[begin : begin + length].tolist()
        assert set(tokens) <= set(sequences[of]) and 2 <= len(tokens) <= size + 1
        context = len(tokens) - int(num)
        assert context >= size - stride + 1 or tokens[0] == sequences[of][0]
        seen += tokens[context:]
    assert sorted(seen) == sorted(token for one in sequences for token in one[1:])


def test_blocks_of_rows_are_a_log_softmax() -> None:
    rng = torch.Generator().manual_seed(0)
    head, states = torch.nn.Linear(6, 50), 30 * torch.randn(2 * ROWS + 7, 6, generator=rng)
    targets = torch.randint(50, (len(states),), generator=rng)
    parts = Readout(lambda **_: None, "", head, torch.device("cpu"))
    with torch.no_grad():
        expected = head(states).double().log_softmax(1).gather(1, targets[:, None])[:, 0]
        found = target_log_prob(parts, states, targets)
    assert float(expected.min()) < -50 and torch.allclose(found, expected, atol=TOLERANCE, rtol=0)


def other_networks() -> dict[str, Any]:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
    capped = {"head_dim": 8, "final_logit_softcapping": 1.0, "sliding_window": 4}
    return {
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)),
        "gemma2": transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**sizes, **heads, **capped)),
    }


@pytest.mark.parametrize(("name", "states"), [("llama", "last_hidden_state"), ("gemma2", "logits")])
def test_logits_that_are_more_than_a_projection_are_taken_whole(name: str, states: str) -> None:
    network = shaken(other_networks()[name])
    parts = readout(network)
    assert parts.name == states
    ids = [[0, 5, 7, 5, 9, 11], [0, 5, 7, 2], [0, 5, 7, 5, 3]]
    expected = [float(token_loop(network, one).sum()) for one in ids]
    assert score(parts, windows(ids, 8, 8), tokens_per_batch=6).tolist() == pytest.approx(expected, abs=TOLERANCE)
    last = [float(token_loop(network, one)[-1]) for one in ids]
    assert score_answers(parts, ids, [1] * 3, tokens_per_batch=6).tolist() == pytest.approx(last, abs=TOLERANCE)


def decoders(*, causal: bool) -> dict[str, Any]:
    """Networks of causal classes whose config says whether they are causal."""
    like_bert = {"vocab_size": 40, "max_position_embeddings": 16, "is_decoder": causal, **SIZES}
    xlm = transformers.XLMConfig(vocab_size=40, emb_dim=16, n_layers=2, n_heads=2, causal=causal)
    return {
        "bert": transformers.BertLMHeadModel(transformers.BertConfig(**like_bert)),
        "roberta": transformers.RobertaForCausalLM(transformers.RobertaConfig(**like_bert)),
        "xlm": transformers.XLMWithLMHeadModel(xlm),
    }


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm"])
@pytest.mark.parametrize("large", [False, True])
def test_networks_that_read_later_tokens_are_refused(name: str, large: bool) -> None:
    made = {causal: decoders(causal=causal)[name].eval() for causal in (False, True)}
    if large:
        made = {causal: shaken(network) for causal, network in made.items()}
    ids = [[0, 5, 7, 5, 9, 11], [0, 5, 7, 2]]
    expected = [float(token_loop(made[True], one).sum()) for one in ids]
    found = score(readout(made[True]), windows(ids, 8, 8), tokens_per_batch=8)
    assert found.tolist() == pytest.approx(expected, abs=TOLERANCE)
    with pytest.raises(UserError, match=rf"^the checkpoint's {type(made[False]).__name__} reads later tokens: .*$"):
        readout(made[False])


def test_a_checkpoint_that_reads_later_tokens_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    marks = {"pad_token": "[PAD]", "unk_token": "<unk>", "cls_token": "[C]", "sep_token": "[S]", "eos_token": "[S]"}
    tokenizer = whole_words("the", "cat", "dog", "sees", "runs", **marks)
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, is_decoder=False, **SIZES)
    shaken(transformers.BertLMHeadModel(config)).save_pretrained(tmp_path)
    assert "BertLMHeadModel reads later tokens" in refused(tmp_path)
    points = torch.tensor([[2, 3, 5, 1, 0, 0]])
    with pytest.raises(UserError, match="reads later tokens"):
        build(tmp_path).stages(Data(SPACE, points, lambda num, rng: points, points))


def test_a_shared_prefix_is_read_once_and_changes_nothing(causal: Path) -> None:
    network, _ = plain(causal)
    whole, num_read = readout(network), 0

    def counted(**asked: Any) -> Any:
        nonlocal num_read
        num_read += asked["input_ids"].numel()
        return whole.states(**asked)

    parts = Readout(counted, whole.name, whole.head, whole.device)
    prefix = [0, *range(20, 32)]
    sequences = [prefix + tail for tail in ([5, 6, 7], [5, 6, 9, 10], [8, 4], [5, 6, 7, 11, 12])]
    num_scored = [2, 1, 1, 4]
    assert common_prefix(sequences) == len(prefix)
    pairs = zip(sequences, num_scored, strict=True)
    expected = [float(token_loop(network, one)[-num:].sum()) for one, num in pairs]
    for tokens_per_batch in (1, 7, 1000):
        num_read = 0
        found = score_answers(parts, sequences, num_scored, tokens_per_batch=tokens_per_batch)
        assert found.tolist() == pytest.approx(expected, abs=TOLERANCE)
        assert num_read < len(prefix) + 4 * 5
    # where an answer follows right upon the prefix, its last token is read with the row that it predicts
    right_behind = [[*prefix, 7], [*prefix, 9, 3]]
    expected = [float(token_loop(network, one)[len(prefix) - 1 :].sum()) for one in right_behind]
    found = score_answers(parts, right_behind, [1, 2], tokens_per_batch=100)
    assert found.tolist() == pytest.approx(expected, abs=TOLERANCE)
    same = score_answers(parts, [right_behind[0]] * 2, [1, 1], tokens_per_batch=100)
    assert same.tolist() == pytest.approx(expected[:1] * 2, abs=TOLERANCE)


def test_answers_are_scored_given_their_contexts(causal: Path) -> None:
    network, tokenizer = plain(causal)
    contexts, answers = ["the cat sees", "the cat sees a"], [[" the dog", " runs", " 7"], [" dog"]]
    found = build(causal).choose(contexts, answers)
    assert [len(one) for one in found] == [3, 1]
    for context, some, values in zip(contexts, answers, found, strict=True):
        num_context = len(tokenizer(context)["input_ids"])
        for answer, value in zip(some, values, strict=True):
            by_token = token_loop(network, framed(tokenizer, context + answer)[:-1])
            assert float(value) == pytest.approx(float(by_token[num_context:].sum()), abs=TOLERANCE)
    # white space at the end of a context is the answer's, since it is split with it
    [ends_in_blank] = build(causal).choose(["the cat sees "], [["the dog", "runs", "7"]])
    assert ends_in_blank.tolist() == found[0].tolist()
    with pytest.raises(UserError, match="question 1 adds no token"):
        build(causal).choose(["a", "b"], [[" dog"], [""]])
    with pytest.raises(UserError, match="and the window is of 24"):
        build(causal).choose([SENTENCES[3]], [[" dog"]])


def test_a_token_that_joins_context_and_answer_is_scored(causal: Path) -> None:
    """`sees` is one token, and `s` another; so is what it makes of the context's end that is scored."""
    network, tokenizer = plain(causal)
    whole, own = (tokenizer(text)["input_ids"] for text in ("the cat sees", "the cat se"))
    same = next(at for at, (a, b) in enumerate(zip(whole, own, strict=False)) if a != b)
    assert same < len(own)
    by_token = token_loop(network, framed(tokenizer, "the cat sees")[:-1])
    [found] = build(causal).choose(["the cat se"], [["es"]])
    assert float(found) == pytest.approx(float(by_token[same:].sum()), abs=TOLERANCE)
    # an answer beside it that joins nothing is scored from there on too: both are given the same
    [both] = build(causal).choose(["the cat se"], [["es", " dog"]])
    other = token_loop(network, framed(tokenizer, "the cat se dog")[:-1])
    assert both.tolist() == pytest.approx([float(found), float(other[same:].sum())], abs=TOLERANCE)


def test_a_masked_model_predicts_each_token_from_all_others(masked: Path) -> None:
    network = transformers.BertForMaskedLM.from_pretrained(masked).eval()
    model = build(masked)
    x = torch.tensor([[2, 3, 5, 1, 0, 0], [4, 1, 0, 0, 0, 0], [2, 3, 5, 2, 4, 1]])
    expected = []
    for text in SPACE.text(x):
        ids = [2, *model._loaded.tokenizer(text, add_special_tokens=False)["input_ids"], 3]
        total = 0.0
        for at in range(1, len(ids)):
            hidden = torch.tensor([[*ids[:at], 4, *ids[at + 1 :]]])
            with torch.no_grad():
                total += float(network(input_ids=hidden).logits[0, at].double().log_softmax(0)[ids[at]])
        expected.append(total)
    assert model.pseudo_log_prob(x).tolist() == pytest.approx(expected, abs=TOLERANCE)
    with pytest.raises(MissingCapability, match="a masked model has no log p of a text"):
        model.score_text(["the cat"])
    with pytest.raises(UserError, match="a text has 7 tokens, and the masked model reads 6"):
        build(masked, window=6).pseudo_log_prob(x)


def test_a_causal_model_has_no_pseudo_likelihood(causal: Path) -> None:
    with pytest.raises(MissingCapability, match="a causal model reads no later token"):
        build(causal).pseudo_log_prob(torch.tensor([[2, 1, 0, 0, 0, 0]]))


def test_a_tokenizer_that_cannot_write_a_text_says_so(causal: Path) -> None:
    words = whole_words("the", "cat", "<eos>", unk_token="<unk>", eos_token="</s>")
    encoder = Encoder(words, len(words))
    # a corpus that writes the marker of unknown words has it as a word
    assert encoder.encode(["the <unk> cat", ""]) == [[2, 0, 3], []]
    with pytest.raises(UserError, match="makes 1 unknown tokens of 'the dog'"):
        encoder.encode(["the cat", "the dog"])
    with pytest.raises(UserError, match="makes token 3, and the network knows 3 only"):
        Encoder(words, 3).encode(["the cat"])
    pairs = byte_pairs()
    with pytest.raises(UserError, match="cannot encode"):
        Encoder(pairs, len(pairs)).encode(["fine", "half a \ud83d pair"])
    from tokenizers import normalizers

    pairs.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="makes 'a cat' of 'A cat'"):
        Encoder(pairs, len(pairs)).encode(["a dog", "A cat"])
    assert Encoder(pairs, len(pairs), lossless=False).encode(["A cat"]) == Encoder(pairs, len(pairs)).encode(["a cat"])
    pairs.eos_token = None
    with pytest.raises(UserError, match="no EOS token"):
        _ = Encoder(pairs, len(pairs)).end
    assert Encoder(pairs, len(pairs)).start == 0
    for side, name in ((words, "EOS is token 1"), (pairs, "BOS is token 0")):
        with pytest.raises(UserError, match=name):
            _ = Encoder(side, 0).start if side is pairs else Encoder(side, 1).end


def test_what_spells_a_marker_is_text(causal: Path) -> None:
    tokenizer = load(causal).tokenizer
    [tokens] = Encoder(tokenizer, len(tokenizer)).encode(["a </s> b"])
    assert tokenizer.eos_token_id not in tokens and tokenizer.decode(tokens) == "a </s> b"
