"""Checkpoints of transformers, made here and small: against loops over tokens, in windows, by a prefix, refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gmbench.baselines.autoregressive.hf.checkpoint import load
from gmbench.baselines.autoregressive.hf.encoding import Encoder
from gmbench.baselines.autoregressive.hf.model import HuggingFace, num_positions
from gmbench.baselines.autoregressive.hf.readout import ROWS, Readout, readout, target_log_prob
from gmbench.baselines.autoregressive.hf.scoring import common_prefix, score, score_answers, windows
from gmbench.conformance import check
from gmbench.errors import MissingCapability, UserError
from gmbench.model import Data
from gmbench.plan import Request, make_plan
from gmbench.plugin import ModelCard, read_manifest
from gmbench.registry import discover
from gmbench.source import source_digest
from gmbench.spaces import TokenSequence

transformers = pytest.importorskip("transformers")

FOLDER = Path(__file__).parents[2] / "baselines" / "autoregressive" / "hf"
SENTENCES = [
    "the cat sees the small dog",
    "a dog that the cats see runs",
    "numbers like 12 and 7, and a café (naïve?)",
    "Capital letters; a <unk> and a </s> that is only spelt",
]
POSITIONS = 24
TOLERANCE = 1e-4  # nats


def byte_pairs() -> Any:
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=["</s>"], show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="</s>", eos_token="</s>")


def whole_words(*words: str, **special: str) -> Any:
    """A tokenizer that knows these words and no others."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    every = [*special.values(), *words]
    one = Tokenizer(models.WordLevel({word: number for number, word in enumerate(every)}, unk_token="<unk>"))
    one.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=one, **special)


def shaken(network: Any) -> Any:
    """The network with large weights, so that its probabilities are far from uniform."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def gpt2(vocab_size: int, **changes: Any) -> Any:
    sizes = {"vocab_size": vocab_size, "n_positions": POSITIONS, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**(sizes | changes))))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with byte-level byte pairs."""
    folder, tokenizer = tmp_path_factory.mktemp("causal"), byte_pairs()
    gpt2(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of whole words."""
    folder = tmp_path_factory.mktemp("masked")
    marks = {"pad_token": "[PAD]", "unk_token": "<unk>", "cls_token": "[C]", "sep_token": "[S]", "mask_token": "[M]"}
    tokenizer = whole_words("the", "cat", "dog", "sees", "runs", **marks)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **sizes)
    shaken(transformers.BertForMaskedLM(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SPACE = TokenSequence(7, 6, words=("<pad>", "<eos>", "the", "cat", "dog", "sees", "runs"))


def build(checkpoint: Path | str, **changes: Any) -> HuggingFace:
    card = read_manifest(FOLDER)
    assert isinstance(card, ModelCard)
    return HuggingFace(HuggingFace.Config(**(card.config | {"checkpoint": str(checkpoint)} | changes)), SPACE)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


@torch.no_grad()
def token_loop(network: Any, ids: Sequence[int], *, size: int = 10**6, stride: int = 1) -> Tensor:
    """log p of every token but the first, (n,), one call of the plain network for each, in windows by their rule."""
    found = []
    for at in range(1, len(ids)):
        end = at if at <= size else min(size + -(-(at - size) // stride) * stride, len(ids) - 1)
        before = list(ids[max(0, end - size) : at])
        found.append(network(input_ids=torch.tensor([before])).logits[0, -1].double().log_softmax(0)[ids[at]])
    return torch.stack(found)


def plain(folder: Path) -> tuple[Any, Any]:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return network, transformers.AutoTokenizer.from_pretrained(folder)


def framed(tokenizer: Any, text: str) -> list[int]:
    """A text with EOS before and behind it, its markers split as the tokenizer splits any text."""
    tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [tokenizer.eos_token_id, *tokens, tokenizer.eos_token_id]


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


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


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


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        build(folder).score_text(["the cat"])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unsafe_and_damaged_checkpoints_are_refused(causal: Path, tmp_path: Path) -> None:
    folder = copied(causal, tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert "cannot be loaded" in refused(folder)
    weights.unlink()
    assert "model.safetensors is missing" in refused(folder)
    torch.save(plain(causal)[0].state_dict(), folder / "pytorch_model.bin")
    assert "has only pickled weights (pytorch_model.bin)" in refused(folder)
    weights.write_bytes(content)
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refused(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder)
    assert "no folder" in refused(tmp_path / "nowhere")


def test_weights_that_are_not_there_are_not_made_up(causal: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(causal, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.1.mlp.c_fc.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights" in refused(folder) and "h.1.mlp.c_fc.weight" in refused(folder)


def test_layers_that_the_config_leaves_out_are_not_left_out_silently(causal: Path, tmp_path: Path) -> None:
    folder = copied(causal, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1}))
    assert "have layers that config.json leaves out" in refused(folder) and "h.1." in refused(folder)


def test_a_further_head_and_a_pooler_are_no_further_layers(masked: Path, tmp_path: Path) -> None:
    folder = copied(masked, tmp_path)
    config = transformers.BertConfig.from_pretrained(masked)
    shaken(transformers.BertForPreTraining(config)).save_pretrained(folder)
    assert build(folder)._loaded.masked


def test_weights_that_are_no_numbers_are_refused(causal: Path, tmp_path: Path) -> None:
    folder, (network, _) = copied(causal, tmp_path), plain(causal)
    with torch.no_grad():
        network.transformer.ln_f.weight[3] = torch.nan
    network.save_pretrained(folder)
    assert "gives NaN" in refused(folder)


def test_positions_that_depend_on_the_batch_end_where_they_begin_to() -> None:
    """Phi-3's: a text beside one that is longer than the first length would have other positions."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24}
    rotary = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = transformers.Phi3Config(
        **sizes,
        num_attention_heads=2,
        max_position_embeddings=64,
        original_max_position_embeddings=8,
        rope_parameters=rotary | {"original_max_position_embeddings": 8},
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shaken(transformers.Phi3ForCausalLM(config))
    assert num_positions(network) == 8
    parts, short = readout(network), [2, 5, 6, 7, 8]
    within, beyond = ([short, list(range(2, 2 + num))] for num in (9, 20))
    alone = float(score(parts, windows([short], 8, 8), tokens_per_batch=99))
    assert float(score(parts, windows(within, 8, 8), tokens_per_batch=99)[0]) == pytest.approx(alone, abs=TOLERANCE)
    beside = float(score(parts, windows(beyond, 32, 8), tokens_per_batch=99)[0])
    assert beside != pytest.approx(alone, abs=100 * TOLERANCE)


def test_a_checkpoint_without_a_tokenizer_says_so(causal: Path, tmp_path: Path) -> None:
    folder = copied(causal, tmp_path)
    for path in (*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("merges*")):
        path.unlink()
    assert "has no tokenizer" in refused(folder)


def test_other_kinds_of_models_are_refused(causal: Path, tmp_path: Path) -> None:
    folder = copied(causal, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2Model"]}))
    assert "holds GPT2Model, which is neither a causal nor a masked language model" in refused(folder)


def test_code_of_a_checkpoint_is_not_executed(causal: Path, tmp_path: Path) -> None:
    folder, trace = copied(causal, tmp_path), tmp_path / "executed"
    config = json.loads((folder / "config.json").read_text())
    foreign = {"model_type": "strange", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config | foreign))
    (folder / "code.py").write_text(f"open({str(trace)!r}, 'w').close()\nC = M = None\n")
    assert "cannot be loaded" in refused(folder) and not trace.exists()


def test_windows_fit_the_checkpoint(causal: Path) -> None:
    with pytest.raises(UserError, match="a window of 25 tokens, and the checkpoint has 24 positions"):
        build(causal, window=25).score_text(["the"])
    with pytest.raises(UserError, match="a stride of 9 leaves out tokens between windows of 8"):
        build(causal, window=8, stride=9).score_text(["the"])


def test_positions_in_front_of_robertas_first_are_of_no_token(tmp_path: Path) -> None:
    marks = {"bos_token": "[C]", "pad_token": "[PAD]", "eos_token": "[S]", "unk_token": "<unk>", "mask_token": "[M]"}
    tokenizer = whole_words("the", "cat", "dog", "sees", "runs", **marks)
    tokenizer.save_pretrained(tmp_path)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=8, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZES
    )
    shaken(transformers.RobertaForMaskedLM(config)).save_pretrained(tmp_path)
    model = build(tmp_path)
    assert model._loaded.tokenizer.model_max_length > 8 and model.window == 6
    six = torch.tensor([[2, 3, 5, 4, 1, 0]])  # four words between two marks
    assert model.pseudo_log_prob(six).isfinite().all()
    with pytest.raises(UserError, match="a text has 7 tokens, and the masked model reads 6"):
        model.pseudo_log_prob(torch.tensor([[2, 3, 5, 4, 6, 1]]))
    with pytest.raises(UserError, match="a window of 7 tokens, and the checkpoint has 6 positions"):
        _ = build(tmp_path, window=7).window


def test_limits_are_those_that_are_stated(causal: Path, masked: Path) -> None:
    assert num_positions(build(masked)._loaded.network) == 16
    model = build(causal)
    network, tokenizer = model._loaded.network, model._loaded.tokenizer
    assert num_positions(network) == POSITIONS
    network.config.n_positions = -1  # some configs write so that there is no limit
    assert num_positions(network) is None
    with pytest.raises(UserError, match="states no longest text"):
        _ = model.window
    tokenizer.model_max_length = 0
    with pytest.raises(UserError, match="states no longest text"):
        _ = model.window
    tokenizer.model_max_length = 20
    assert model.window == 20


def test_a_name_is_looked_up_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="'somebody/something' is no folder here, is not in the cache"):
        build("somebody/something")


def test_the_extra_is_named_where_it_is_missing(causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(causal)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'needs transformers: pip install "gmbench\[hf\]"$'):
        model.score_text(["the cat"])


def test_the_card_conforms_without_a_checkpoint() -> None:
    results = {result.name: result for result in check(discover().models["hf"])}
    assert not [result for result in results.values() if result.status == "failed"]
    assert results["capabilities_are_declared"].status == "passed"
    assert "--model hf:FOLDER" in results["fits"].message


TASK = """
from __future__ import annotations

import torch

from gmbench.metrics.likelihood import nll
from gmbench.model import Data
from gmbench.spaces import TokenSequence
from gmbench.task import Measurement, Task
from gmbench.tasks.language.likelihoods import sequence_likelihoods

POINTS = torch.tensor([[2, 3, 5, 1, 0, 0], [4, 1, 0, 0, 0, 0], [2, 3, 5, 2, 4, 1]])


class Words(Task):
    space = TokenSequence(7, 6, words=("<pad>", "<eos>", "the", "cat", "dog", "sees", "runs"))

    def data(self, seed):
        return Data(self.space, POINTS, lambda num, rng: POINTS[:num], POINTS)

    def measure_nats(self, model, context):
        found = {f"nats.{one.key}": one for one in sequence_likelihoods(model, POINTS, self.space, {}, context.rng)}
        values = {key: nll(one.log_p, one.kind) for key, one in found.items()}
        return Measurement(values, headline=next(iter(values)), per_point=-next(iter(found.values())).log_p.float())

    def measure_pseudo(self, model, context):
        return Measurement({"pseudo": nll(model.pseudo_log_prob(POINTS), "exact")})
"""
CARD = """
kind = "task"
name = "few_words"
version = 1
summary = "three sentences"
entry = "task:Words"
licence = "Apache-2.0"
modality = "language"
space = "tokens"
default_variant = "a=b"
default_track = "smoke"
protocol = {}
variants = [{ name = "a=b", tracks = ["smoke"] }]

[metrics.nats]
summary = "nats of a sentence"
requires = ["token_log_prob|score_text"]
headline = true

[metrics.pseudo]
summary = "pseudo-nats of a sentence"
requires = ["pseudo_log_prob"]

[tracks.smoke]
summary = "for tests"
ceiling_minutes = 1
"""


@pytest.fixture
def few_words(tmp_path: Path) -> Path:
    folder = tmp_path / "few_words"
    folder.mkdir()
    (folder / "plugin.toml").write_text(CARD)
    (folder / "task.py").write_text(TASK)
    return folder


def test_run_measures_a_folder_and_keeps_its_digest(
    gmbench: Callable[..., Any], few_words: Path, causal: Path, tmp_path: Path
) -> None:
    folder = copied(causal, tmp_path)
    asked = ("run", "--task", few_words, "--model", f"hf:{folder}", "--json")
    first = gmbench(*asked)
    assert first.code == 0, first.err
    record = first.json
    texts = ["the cat sees", "dog", "the cat sees the dog"]
    expected = -float(build(folder).score_text(texts).mean())
    assert record["metrics"]["nats.text"]["value"] == pytest.approx(expected, abs=TOLERANCE)
    assert record["cost"]["parameters"] == sum(one.numel() for one in plain(folder)[0].parameters())
    assert "checkpoint" not in record["config"] and len(record["config"]["sha256"]) == 64
    assert "causal model" in record["unavailable"]["pseudo"] and record["headline"] == "nats.text"
    assert f"--model hf:{folder}" in record["command"] and not record["card_config"]
    [run] = Path("runs/few_words/hf").iterdir()
    assert sum(path.stat().st_size for path in run.iterdir()) < 20_000 < (folder / "model.safetensors").stat().st_size
    again = gmbench(*asked, "--remeasure")
    assert again.json["metrics"] == record["metrics"] and again.json["fit_id"] == record["fit_id"]
    # other weights under the same name are another run
    gpt2(len(byte_pairs()), n_layer=1).save_pretrained(folder)
    other = gmbench(*asked)
    assert other.json["fit_id"] != record["fit_id"]
    assert other.json["metrics"]["nats.text"]["value"] != record["metrics"]["nats.text"]["value"]
    meant = gmbench(*asked, "--set", f"sha256={record['config']['sha256']}")
    assert meant.code == 2 and "has the SHA-256" in meant.err and meant.err.count("\n") == 2  # with the run's name


def test_run_measures_a_masked_model_by_pseudo_likelihood_only(
    gmbench: Callable[..., Any], few_words: Path, masked: Path
) -> None:
    record = gmbench("run", "--task", few_words, "--model", f"hf:{masked}", "--json").json
    assert list(record["metrics"]) == ["pseudo"] and record["headline"] == ""
    assert "masked model" in record["unavailable"]["nats"]


def test_what_the_colon_names(gmbench: Callable[..., Any], few_words: Path, causal: Path) -> None:
    asked = ("run", "--task", few_words, "--model")
    nothing = gmbench(*asked, "hf:")
    assert nothing.code == 2 and "--model hf: says no checkpoint" in nothing.err
    twice = gmbench(*asked, f"hf:{causal}", "--set", "checkpoint=x")
    assert twice.code == 2 and "both say what checkpoint is" in twice.err
    other = gmbench(*asked, "uniform_tokens:x")
    assert other.code == 2 and "no model is named 'uniform_tokens:x'" in other.err
    without = gmbench(*asked, "hf")
    assert without.code == 1 and "--model hf:FOLDER" in without.err


def test_a_path_with_a_plus_is_no_preset(causal: Path, few_words: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(causal, tmp_path / "a+b:c"))
    plan = make_plan(Request(str(few_words), f"hf:{folder}"))
    assert plan.name == "hf" and plan.config.checkpoint == str(folder)  # type: ignore[attr-defined]


def test_the_argument_is_no_part_of_a_models_source() -> None:
    plugin = discover().models["hf"]
    other = type(plugin)(plugin.card.model_copy(update={"argument": ""}), plugin.folder, plugin.package)
    assert source_digest(plugin) == source_digest(other)


def test_the_same_files_elsewhere_are_the_same_run(causal: Path, few_words: Path, tmp_path: Path) -> None:
    plans = [make_plan(Request(str(few_words), f"hf:{folder}")) for folder in (causal, copied(causal, tmp_path))]
    assert plans[0].fit_id == plans[1].fit_id and "checkpoint" not in plans[0].identity["config"]
    other = copied(causal, tmp_path / "more")
    _, tokenizer = plain(other)
    gpt2(len(tokenizer), n_embd=32).save_pretrained(other)
    assert make_plan(Request(str(few_words), f"hf:{other}")).fit_id != plans[0].fit_id
