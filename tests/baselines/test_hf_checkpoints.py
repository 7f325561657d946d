"""Checkpoints of transformers that are damaged, unsafe, strange or of another kind, and the limits that they state."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from checkpoints import POSITIONS, SIZES, TOLERANCE, build, copied, plain, refused, shaken, transformers, whole_words
from gmbench.baselines.autoregressive.hf.model import num_positions
from gmbench.baselines.autoregressive.hf.readout import readout
from gmbench.baselines.autoregressive.hf.scoring import score, windows
from gmbench.conformance import check
from gmbench.errors import UserError
from gmbench.registry import discover


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
